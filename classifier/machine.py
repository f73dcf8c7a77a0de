"""How many cores and how much memory this process may use, which may be less than there are."""

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

# A container's memory limit and its use in Linux's control groups, version 2 and version 1. Cached
# files (memory.stat) count as used, but are given back when memory is needed.
CGROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", ""),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
)


def cpu_count() -> int:
    """How many cores this process may use, which a container or taskset can make fewer."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory() -> int:
    """How many more bytes this process may use, of the machine's memory or its container's."""
    free = psutil.virtual_memory().available
    for folder, limit, usage, prefix in CGROUPS:
        try:
            unused = int((folder / limit).read_text()) - int((folder / usage).read_text())
            lines = (folder / "memory.stat").read_text().splitlines()
            stat = dict(line.split() for line in lines)
            cached = sum(int(stat[f"{prefix}{kind}_file"]) for kind in ("active", "inactive"))
        except (OSError, ValueError, KeyError):  # no such group, or its limit is "max"
            continue
        free = min(free, max(0, unused + cached))
    return free


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Import modules in the body without garbage collection, and freeze their objects.

    Collecting TensorFlow's 300,000 objects takes 0.4 s of an import of 1.8 s, and 0.6 s at exit.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
