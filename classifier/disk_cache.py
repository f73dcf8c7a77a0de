"""Pictures that don't fit into memory, kept in the network's size in a file beside the run.

A photograph of 12 megapixels takes 25 ms to decode, once; reading what it became takes 0.1.
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

# The file may take this share of the disk that is free: others need room, too.
MAX_DISK_SHARE = 0.5
WHAT = "decoded pictures, so that they need not be decoded in every epoch; may be deleted"


class DiskCache:
    """A decoder that keeps what it has decoded, and next time reads it from there.

    The file is used again by later runs with the same pictures, and begun anew if one of them, or
    their size, has changed since.
    """

    def __init__(self, path: Path, pictures: Sequence[str], size: tuple[int, int], decode: Decoder):
        self.path, self.size, self.decode = path, size, decode
        self.places = {picture: place for place, picture in enumerate(pictures)}
        self.made_from = fingerprint(pictures, size)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.kept = self.there()
        if not self.kept:
            self.note_path.unlink(missing_ok=True)
            with open(path, "wb") as file:
                file.truncate(len(pictures) * self.length)

    @staticmethod
    def fits(path: Path, count: int, size: tuple[int, int]) -> bool:
        """Whether there is room on the disk for a cache of so many pictures in this file."""
        existing = next(parent for parent in path.parents if parent.exists())
        room = shutil.disk_usage(existing).free
        if path.exists():  # an earlier run's cache is read again, or overwritten
            status = path.stat()
            # What an interrupted run hasn't written takes no room; Windows doesn't say.
            room += min(status.st_size, getattr(status, "st_blocks", math.inf) * 512)
        return count * math.prod(size) * 3 <= MAX_DISK_SHARE * room

    @property
    def length(self) -> int:
        """Of a picture, in bytes."""
        return math.prod(self.size) * 3

    @property
    def note_path(self) -> Path:
        return self.path.with_suffix(".json")

    def there(self) -> set[int]:
        """The places of the pictures that an earlier run has kept, if they are the same ones."""
        try:
            said = json.loads(self.note_path.read_text(encoding="utf-8"))
            whole = self.path.stat().st_size == len(self.places) * self.length
            if not whole or said["made_from"] != self.made_from:
                return set()
            return set(self.places.values()) - set(map(int, said["left_out"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return set()  # no such file, or it is damaged: the pictures are decoded again

    def complete(self) -> None:
        """Note that all pictures that can be decoded are in the file."""
        note = {
            "what": WHAT,
            "size": self.size,
            "left_out": sorted(set(self.places.values()) - self.kept),
            "made_from": self.made_from,
        }
        write_file(self.note_path, json.dumps(note, indent=2).encode())

    def __call__(self, picture: str, size: tuple[int, int]) -> np.ndarray:
        """As decode does: uint8 [height, width, 3]."""
        place = self.places[picture]
        with open(self.path, "r+b") as file:
            file.seek(place * self.length)
            if place in self.kept:
                return np.frombuffer(file.read(self.length), np.uint8).reshape(*size, 3)
            pixels = self.decode(picture, size)
            file.write(pixels.tobytes())
        self.kept.add(place)
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
