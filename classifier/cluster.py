"""The machines of one training, as TF_CONFIG names them, and waiting until all of them are there.

TensorFlow waits for them, too, but says nothing, and hears neither Ctrl-C nor SIGTERM: it keeps
Python from running until the last one has come. So the others first call the first machine at its
own address, and when all have, they begin.
"""

import contextlib
import json
import os
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from classifier.console import InputError, warn

# A scheduler starts all machines within seconds, unless one must fetch the program's image first.
MAX_WAIT = 600  # seconds
RETRY_INTERVAL = 0.5  # seconds between two tries
RESPONSE_TIMEOUT = 5  # seconds: whoever calls and then says nothing is none of ours
START = "begin"  # the first machine's answer, if there is nothing against it
EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


class Worker(NamedTuple):
    """Which of the machines this one is."""

    addresses: tuple[str, ...]  # "host:port" of each; the first keeps what is learned
    index: int
    chiefs: int = 0  # how many of them, from the first on, TensorFlow calls chief; else worker

    def name(self, index: int) -> str:
        """What a machine is called: "worker 2, 10.0.0.2:2222"."""
        return f"worker {index + 1}, {self.addresses[index]}"

    def host_and_port(self, index: int) -> tuple[str, int]:
        """Where a machine listens."""
        host, port = self.addresses[index].rsplit(":", 1)
        return host.strip("[]"), int(port)  # an IPv6 address stands in brackets


# ---------------------------------------------------------------- TF_CONFIG


def worker_from_tf_config() -> Worker | None:
    """What TF_CONFIG says; None if it is not set, or names one machine only.

    Raises:
        ValueError: it can't be meant so; the message is one line.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"TF_CONFIG is no JSON ({error}); it looks like {EXAMPLE}") from None
    machines = {}  # from (job, index) to its address
    try:
        for job in ("chief", "worker"):  # a chief is the first of the workers by another name
            for index, address in enumerate(said["cluster"].get(job, [])):
                if not 0 < int(address.rsplit(":", 1)[1]) < 65536:
                    raise ValueError("no such port")
                machines[job, index] = address
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        machines = {}
    if not machines or len(set(machines.values())) < len(machines):
        raise ValueError(
            f"TF_CONFIG: its cluster must list each machine's host and port once, as in {EXAMPLE}"
        )
    try:
        task = (said["task"]["type"], said["task"]["index"])
    except (KeyError, TypeError):
        raise ValueError(
            f"TF_CONFIG lacks its task, which of the machines this one is, as in {EXAMPLE}"
        ) from None
    if task not in list(machines) or type(task[1]) is not int:
        counts = Counter(job for job, _ in machines)
        known = " or ".join(f'type "{job}", index {upto(count)}' for job, count in counts.items())
        raise ValueError(
            f"TF_CONFIG: its task is type {json.dumps(task[0])}, index {json.dumps(task[1])}, and "
            f"must be {known} (index counts from 0)"
        )
    chiefs = sum(job == "chief" for job, _ in machines)
    place = Worker(tuple(machines.values()), list(machines).index(task), chiefs)
    return place if len(machines) > 1 else None


def upto(count: int) -> str:
    """The numbers of so many that are counted from 0."""
    return "0" if count == 1 else f"0 to {count - 1}"


def check_tf_config() -> Worker | None:
    """What here() says; if TF_CONFIG can't be meant so, one line and an end with status 2."""
    try:
        return worker_from_tf_config()
    except ValueError as error:
        warn(f"{Path(sys.argv[0]).name}: {error}")
        sys.exit(2)


# ---------------------------------------------------------------- waiting


class WaitMessage:
    """Says whom this machine waits for, whenever it is someone else, and when it gives up."""

    def __init__(self):
        self.limit, self.whom = time.monotonic() + MAX_WAIT, ""

    def for_(self, whom: str) -> None:
        """Raise InputError if this machine has waited too long."""
        if time.monotonic() > self.limit:
            raise InputError(
                f"waited {MAX_WAIT:.0f} s for {self.whom or whom}; is the program started "
                "there, with the same list in TF_CONFIG, and its port open to this machine?"
            )
        if whom != self.whom:
            self.whom = whom
            print(f"waiting for {whom}", flush=True)


def wait_for_workers(place: Worker, asked: dict[str, Any]) -> None:
    """Say who this machine is, and wait until all are there.

    Args:
        place: of this machine.
        asked: what it is to do, in terms of JSON; the others must be asked for the same.

    Raises:
        InputError: they didn't come in time; or this one differs from the first.
    """
    print(f"worker {place.index + 1} of {len(place.addresses)}, {place.addresses[place.index]}")
    wait = WaitMessage()
    with listen(place, wait) as door:
        if place.index == 0:
            accept_workers(place, asked, wait, door)
    if place.index > 0:
        call_first_worker(place, asked, wait)


def listen(place: Worker, wait: WaitMessage) -> socket.socket:
    """This machine's port, as soon as it is free: an earlier training may be about to end."""
    while True:
        try:
            door = socket.create_server(("", place.host_and_port(place.index)[1]))
            door.settimeout(RETRY_INTERVAL)
            return door
        except OSError as error:
            port = place.host_and_port(place.index)[1]
            wait.for_(f"port {port} of this machine ({error.strerror or error})")
            time.sleep(RETRY_INTERVAL)


def accept_workers(
    place: Worker, asked: dict[str, Any], wait: WaitMessage, door: socket.socket
) -> None:
    """The first machine's part: wait until all others have called, then have them begin."""
    callers: dict[int, socket.socket] = {}
    while missing := sorted(set(range(1, len(place.addresses))) - callers.keys()):
        wait.for_(" and ".join(map(place.name, missing)))
        callers = {index: caller for index, caller in callers.items() if has_not_hung_up(caller)}
        try:
            caller, _ = door.accept()
        except TimeoutError:
            continue
        try:
            caller.settimeout(RESPONSE_TIMEOUT)
            index, addresses, flags = json.loads(caller.makefile(encoding="utf-8").readline())
            fault = difference(index, addresses, flags, place, asked)
            if not fault and index in callers:
                fault = f"another machine is worker {index + 1} already"
            if fault:
                caller.sendall(f"{fault}\n".encode())
                warn(f"a machine was sent away: {fault}")
            elif index in missing:
                callers[index] = caller
        except (OSError, ValueError, TypeError, AttributeError):
            continue  # none of ours
    for caller in callers.values():
        with contextlib.suppress(OSError):  # lost now, as it could be a second later
            caller.sendall(f"{START}\n".encode())


def has_not_hung_up(caller: socket.socket) -> bool:
    caller.settimeout(0)
    try:
        return caller.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def call_first_worker(place: Worker, asked: dict[str, Any], wait: WaitMessage) -> None:
    """Another machine's part: call the first until it says to begin."""
    while True:
        wait.for_(place.name(0))
        with contextlib.suppress(OSError):
            with socket.create_connection(place.host_and_port(0), RESPONSE_TIMEOUT) as line:
                line.sendall(json.dumps([place.index, place.addresses, asked]).encode() + b"\n")
                line.settimeout(max(RETRY_INTERVAL, wait.limit - time.monotonic()))
                wait.for_(f"the others, with {place.name(0)}")
                answer = line.makefile(encoding="utf-8").readline().rstrip("\n")
            if answer == START:
                return
            if answer:
                raise InputError(f"{place.name(0)} sent this one away: {answer}")
        time.sleep(RETRY_INTERVAL)


def difference(
    index: int, addresses: list[str], flags: dict[str, Any], place: Worker, asked: dict[str, Any]
) -> str | None:
    """In what a caller, its list and what it was asked for differ from the first's, in words."""
    worker = f"worker {index + 1}"
    if addresses != list(place.addresses):
        there, here = map(", ".join, (addresses, place.addresses))
        return f"TF_CONFIG of {worker} lists {there}, that of worker 1 {here}"
    for name in sorted(flags.keys() | asked):
        if flags.get(name) != asked.get(name):
            there, here = (given.get(name, "not given") for given in (flags, asked))
            return f"--{name} of {worker} is {there}, of worker 1 {here}"
    return None
