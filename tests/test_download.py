"""What classifier.download promises: the very files, from a mirror that gives them, in time."""

import contextlib
import hashlib
import http.server
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from classifier import download
from classifier.download import NoMirrorError

ROOT = Path(__file__).parents[1]
MAX_BYTES = 1_000_000
FILES = {f"{name}.gz": f"{name}\n".encode() * 500 for name in "abcd"}
SUMS = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


class Mirror(http.server.ThreadingHTTPServer):
    """Serves `files` from 127.0.0.1, each answer by way of `behaviour`; `asked` is for what."""

    daemon_threads = True

    def __init__(self, files, behaviour):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.behaviour = files, behaviour
        self.asked, self.closing = [], threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/mnist/"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is what many of these tests want


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802, http.server's name
        name = self.path.rpartition("/")[2]
        self.server.asked.append(name)
        self.server.behaviour(self, self.server.files[name])

    def log_message(self, *arguments):
        pass

    def head(self, status=200, **headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()


def good(answer, content):
    answer.head(Content_Length=len(content))
    answer.wfile.write(content)


def good_without_a_length(answer, content):
    answer.head()
    answer.wfile.write(content)


def truncated(answer, content):
    answer.head(Content_Length=len(content))
    answer.wfile.write(content[:-9])


def wrong_bytes(answer, content):
    good(answer, content[:-1] + b"?")


def empty(answer, content):
    good(answer, b"")


def forbidden(answer, content):
    answer.head(403)


def nonsense(answer, content):
    answer.wfile.write(b"\x1b[2J nonsense\r\n\r\n")


def nonsense_length(answer, content):
    answer.head(Content_Length="many")


def hangs_before_the_answer(answer, content):
    answer.server.closing.wait(30)


def hangs_in_the_body(answer, content):
    answer.head(Content_Length=len(content))
    answer.wfile.write(content[:-9])
    answer.server.closing.wait(30)


def drips(answer, content):
    answer.head(Content_Length=len(content))
    for byte in content:
        answer.wfile.write(bytes([byte]))
        if answer.server.closing.wait(0.1):
            return


def never_ends(answer, content):
    answer.head()
    while not answer.server.closing.is_set():
        answer.wfile.write(bytes(1 << 16))


BAD = {
    truncated: "wrong SHA-256",
    wrong_bytes: "wrong SHA-256",
    empty: "wrong SHA-256",
    forbidden: "403 Forbidden",
    nonsense: "nonsense",
    nonsense_length: "wrong SHA-256",
    hangs_before_the_answer: "no answer, or a stalled one, after 0 bytes",
    hangs_in_the_body: "stalled",
    drips: "stalled",
    never_ends: "does not end after",
}

HANGING = [hangs_before_the_answer, hangs_in_the_body, drips]


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """Fetches FILES from mirrors with the given behaviours; returns the folder and the mirrors."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with contextlib.ExitStack() as stack:

        def start(*behaviours, sums=SUMS):
            servers = [Mirror(FILES, behaviour) for behaviour in behaviours]
            for server in servers:
                stack.callback(server.close)
            if any(behaviour in HANGING for behaviour in behaviours):
                monkeypatch.setattr(download, "TIMEOUT", 0.7)
            download.download(sums, [server.url for server in servers], tmp_path, MAX_BYTES)
            return servers

        yield start


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("behaviour", [good, good_without_a_length])
def test_files_are_fetched_into_the_folder(fetch, tmp_path, behaviour):
    fetch(behaviour)
    assert contents(tmp_path) == FILES


@pytest.mark.parametrize("behaviour", BAD)
def test_a_bad_mirror_is_one_error_that_says_where_to_put_the_files(fetch, tmp_path, behaviour):
    start = time.monotonic()
    with pytest.raises(NoMirrorError) as error:
        fetch(behaviour)
    assert time.monotonic() - start < 5
    message = str(error.value)
    assert "http://127.0.0.1" in message
    assert BAD[behaviour] in message
    assert "\n" not in message
    assert f"put them into {tmp_path} by hand" in message
    assert all(name in message for name in FILES)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("behaviour", [wrong_bytes, forbidden, hangs_in_the_body])
def test_the_next_mirror_takes_over(fetch, tmp_path, behaviour):
    first, _ = fetch(behaviour, good)
    assert contents(tmp_path) == FILES
    assert len(first.asked) == 1


def good_twice(answer, content):
    (good if len(answer.server.asked) < 3 else forbidden)(answer, content)


def test_a_mirror_goes_on_where_the_one_before_it_ended(fetch, tmp_path):
    first, second = fetch(good_twice, good)
    assert (first.asked, second.asked) == (["a.gz", "b.gz", "c.gz"], ["c.gz", "d.gz"])
    assert contents(tmp_path) == FILES


def test_files_that_came_stay_and_only_the_others_are_asked_for(fetch, tmp_path):
    with pytest.raises(NoMirrorError, match=r"^c\.gz, d\.gz can't be downloaded"):
        fetch(good_twice)
    assert contents(tmp_path).keys() == {"a.gz", "b.gz"}


def test_mirrors_that_hang_cost_their_patience_and_no_more(fetch):
    start = time.monotonic()
    with pytest.raises(NoMirrorError):
        fetch(*HANGING)
    assert time.monotonic() - start < len(HANGING) * download.TIMEOUT + 2


def test_a_steady_but_slow_mirror_is_waited_for(fetch, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    monkeypatch.setattr(download, "MIN_BYTES_PER_SECOND", 1000)

    def slow(answer, content):
        answer.head(Content_Length=len(content))
        for start in range(0, len(content), 100):
            answer.wfile.write(content[start : start + 100])
            time.sleep(0.06)  # in all twice as long as the patience

    fetch(slow, sums={"a.gz": SUMS["a.gz"]})
    assert contents(tmp_path) == {"a.gz": FILES["a.gz"]}


def test_a_mirror_that_never_answers_does_not_keep_the_program_from_ending():
    code = (
        "import sys; from classifier import download; download.TIMEOUT = 0.5\n"
        "try: download.fetch(sys.argv[1], '', 0)\n"
        "except download.MirrorError as error: print(error)"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.gz"
        done = subprocess.run(
            [sys.executable, "-c", code, url], cwd=ROOT, capture_output=True, text=True, timeout=20
        )
    assert done.stdout == "no answer, or a stalled one, after 0 bytes\n"
