"""A file from the first mirror that answers, checked."""

import contextlib
import hashlib
import http.client
import queue
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator

from classifier.console import InputError

# The largest of the four is 9.9 MB; a mirror that sends more is not sending MNIST.
MOST_BYTES = 16_000_000
# A mirror may keep us waiting this many seconds; three of them hang for less than 10 in all.
PATIENCE = 3.0
# Slower than this is as good as hanging: at 10 kB a second MNIST takes 20 minutes.
LEAST_BYTES_PER_SECOND = 10_000


class NoMirrorError(InputError):
    """No mirror has given MNIST."""


class MirrorError(Exception):
    """This mirror has not given the file; the message says why."""


def progress(items: Iterable, total: int, doing: str, size: Callable = lambda item: 1) -> Iterator:
    """Pass the items on, showing how far they are: a bar on a terminal, four lines in a log."""
    terminal = sys.stdout.isatty()
    steps = 100 if terminal else 4
    done = shown = 0
    for item in items:
        yield item
        done += size(item)
        if done * steps // total > shown:
            shown = done * steps // total
            bar = f"[{'=' * (30 * done // total):30s}] " if terminal else ""
            end = "\r" if terminal and done < total else "\n"
            print(f"{doing}: {bar}{done}/{total}", end=end, flush=True)


def fetch(url: str, sha256: str) -> bytes:
    """Download one file.

    Raises:
        MirrorError: no connection, no answer in time, or the answer is not the file of that hash.
    """
    arrivals = blocks(url)
    size = next(arrivals)
    content = bytearray()
    for block in progress(arrivals, size, url, len):
        content += block
        if len(content) > MOST_BYTES:
            raise MirrorError(f"{url} does not end after {MOST_BYTES} bytes")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise MirrorError(f"{url} is not MNIST's file: wrong SHA-256, {len(content)} bytes")
    return content


def blocks(url: str) -> Iterator:
    """The size that the answer to a request promises, then its bytes as they come.

    Raises:
        MirrorError: no connection, or what comes is too slow to wait for.
    """
    # Received in a thread, since a name look-up or a handshake that hangs knows of no time-out.
    arrivals = queue.Queue(maxsize=16)
    threading.Thread(target=receive, args=(url, arrivals), daemon=True).start()
    received = 0
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            arrival = arrivals.get(timeout=max(0, deadline - time.monotonic()))
        except queue.Empty:
            raise MirrorError(f"no answer, or a stalled one, after {received} bytes") from None
        if isinstance(arrival, Exception):
            code, reason = getattr(arrival, "code", ""), getattr(arrival, "reason", arrival)
            raise MirrorError(f"{code} {reason}".strip())
        if arrival == b"":
            return
        yield arrival
        if isinstance(arrival, bytes):
            received += len(arrival)
            earned = deadline + len(arrival) / LEAST_BYTES_PER_SECOND
            deadline = min(earned, time.monotonic() + PATIENCE)


def receive(url: str, arrivals: queue.Queue) -> None:
    """Put what `blocks` yields into the queue, then b"" or the error that ended it."""
    with contextlib.suppress(queue.Full):  # nobody waits for it any more
        try:
            opener = urllib.request.build_opener(RedirectToHttps)
            with opener.open(url, timeout=2 * PATIENCE) as response:  # blocks() gives up earlier
                arrivals.put(int(response.headers.get("Content-Length") or MOST_BYTES))
                while block := response.read1(1 << 16):
                    arrivals.put(block, timeout=PATIENCE)
            arrivals.put(b"", timeout=PATIENCE)
        except (OSError, ValueError, http.client.HTTPException) as error:
            arrivals.put(error, timeout=PATIENCE)


class RedirectToHttps(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, response, code, message, headers, url):
        if not url.startswith("https://"):
            raise urllib.error.HTTPError(url, code, "redirected away from https", headers, response)
        return super().redirect_request(request, response, code, message, headers, url)
