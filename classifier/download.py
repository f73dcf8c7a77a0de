"""Files from the first mirror that answers, checked."""

import hashlib
import http.client
import multiprocessing
import time
import urllib.request
from collections.abc import Callable, Iterable
from multiprocessing.pool import ThreadPool
from pathlib import Path

from classifier.console import InputError
from classifier.files import write_file
from classifier.progress import progress

# A mirror may keep us waiting this many seconds; three of them hang for less than 10 in all.
TIMEOUT = 3.0
# Slower than this is as good as hanging: at 10 kB a second MNIST's 12 MB take 20 minutes.
MIN_BYTES_PER_SECOND = 10_000


class NoMirrorError(InputError):
    """No mirror has given the files."""


class MirrorError(Exception):
    """This mirror has not given the file; the message says why."""


def download(sums: dict[str, str], mirrors: Iterable[str], folder: Path, max_bytes: int) -> None:
    """Fetch files into a folder; a mirror that fails isn't asked again, the next one goes on.

    Args:
        sums: the files' names, each with the SHA-256 of its content.
        mirrors: the addresses under which they should be.
        folder: where they are written, each whole or not at all.
        max_bytes: more than this is none of the files.

    Raises:
        NoMirrorError: the mirrors have not given all of them; those that came stay in the folder.
    """
    missing, failures = list(sums), []
    for mirror in mirrors:
        try:
            while missing:
                name = missing[0]
                url = f"{mirror.rstrip('/')}/{name}"
                write_file(folder / name, fetch(url, sums[name], max_bytes))
                missing.remove(name)
            return
        except MirrorError as error:
            failures.append(f"{mirror}: {error}")
    raise NoMirrorError(
        f"{', '.join(missing)} can't be downloaded ({'; '.join(failures)}); put them "
        f"into {folder} by hand and run again"
    )


def fetch(url: str, sha256: str, max_bytes: int) -> bytes:
    """Download one file.

    Raises:
        MirrorError: no connection, too slow, or not the file of that hash.
    """
    content = bytearray()
    deadline = time.monotonic() + TIMEOUT

    def wait_for(function: Callable, *arguments):
        try:
            return thread.apply_async(function, arguments).get(deadline - time.monotonic())
        except multiprocessing.TimeoutError:
            raise MirrorError(f"no answer, or a stalled one, after {len(content)} bytes") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            code, reason = getattr(error, "code", ""), getattr(error, "reason", error)
            raise MirrorError(f"{code} {reason}".strip()) from None

    # In a thread, since a name look-up or a handshake that hangs has no time-out of its own.
    with ThreadPool(1) as thread:
        # The time-out here only ends the thread, some time after its caller has given up.
        response = wait_for(urllib.request.urlopen, url, None, 2 * TIMEOUT)
        blocks = iter(lambda: wait_for(response.read1, 1 << 16), b"")
        with progress(total=response.length, desc=url, unit="B", unit_scale=True) as bar:
            for block in blocks:
                content += block
                if len(content) > max_bytes:
                    raise MirrorError(f"{url} does not end after {max_bytes} bytes")
                earned = deadline + len(block) / MIN_BYTES_PER_SECOND
                deadline = min(earned, time.monotonic() + TIMEOUT)
                bar.update(len(block))
    if hashlib.sha256(content).hexdigest() != sha256:
        raise MirrorError(f"{url} is another file: wrong SHA-256, {len(content)} bytes")
    return bytes(content)
