"""Pictures that don't fit into memory, kept in the network's size in a file beside the run.

A photograph of 12 megapixels takes 25 ms to decode; reading what it became takes 0.1.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from classifier.files import write_file
from classifier.opener import Decoder

MAX_DISK_SHARE = 0.5  # of the free disk: others need room, too
WHAT = "decoded pictures, so that they need not be decoded in every epoch; may be deleted"


class DiskCache:
    """A decoder that writes what it has decoded into a file, and next time reads it from there.

    Later runs with the same pictures use the file again. If one of them, or their size, has
    changed, it is begun anew.
    """

    def __init__(self, path: Path, pictures: Sequence[str], size: tuple[int, int], decode: Decoder):
        self.path, self.metadata_path = path, path.with_suffix(".json")
        self.size, self.decode = size, decode
        self.bytes_each = math.prod(size) * 3
        self.indices = {picture: index for index, picture in enumerate(pictures)}
        self.fingerprint = fingerprint(pictures, size)
        self.cached = self.cached_before()  # indices of the pictures that are in the file
        if not self.cached:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.metadata_path.unlink(missing_ok=True)
            with open(path, "wb") as file:
                file.truncate(len(pictures) * self.bytes_each)

    @staticmethod
    def fits(path: Path, count: int, size: tuple[int, int]) -> bool:
        """Whether there is room on the disk for so many pictures in this file."""
        existing = next(parent for parent in path.parents if parent.exists())
        room = shutil.disk_usage(existing).free
        if path.exists():  # an earlier run's cache is read again, or overwritten
            status = path.stat()
            # What an interrupted run hasn't written takes no room; Windows doesn't say.
            room += min(status.st_size, getattr(status, "st_blocks", math.inf) * 512)
        return count * math.prod(size) * 3 <= MAX_DISK_SHARE * room

    def cached_before(self) -> set[int]:
        """The pictures that an earlier run has left in the file; none if others are meant."""
        try:
            metadata = json.loads(self.metadata_path.read_text(encoding="utf-8"))
            whole = self.path.stat().st_size == len(self.indices) * self.bytes_each
            if not whole or metadata["made_from"] != self.fingerprint:
                return set()
            return set(self.indices.values()) - set(map(int, metadata["left_out"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return set()  # no such file, or it is damaged: the pictures are decoded again

    def complete(self) -> None:
        """Note that all pictures that can be decoded are in the file."""
        left_out = sorted(set(self.indices.values()) - self.cached)
        metadata = {"what": WHAT, "size": self.size, "left_out": left_out}
        metadata["made_from"] = self.fingerprint
        write_file(self.metadata_path, json.dumps(metadata, indent=2).encode())

    def __call__(self, picture: str, size: tuple[int, int]) -> np.ndarray:
        """As decode does: uint8 [height, width, 3]."""
        index = self.indices[picture]
        with open(self.path, "r+b") as file:
            file.seek(index * self.bytes_each)
            if index in self.cached:
                return np.frombuffer(file.read(self.bytes_each), np.uint8).reshape(*size, 3)
            pixels = self.decode(picture, size)
            file.write(pixels.tobytes())
        self.cached.add(index)
        return pixels


def fingerprint(pictures: Sequence[str], size: tuple[int, int]) -> str:
    """A hash that changes if one of the files does, or the size that they are decoded to."""
    digest = hashlib.sha256(repr(size).encode())
    for picture in pictures:
        try:
            status = os.stat(picture)
            state = (status.st_size, status.st_mtime_ns)
        except OSError:  # a link that leads nowhere, which decoding will name
            state = None
        digest.update(f"{picture} {state}\n".encode("utf-8", "replace"))
    return digest.hexdigest()
