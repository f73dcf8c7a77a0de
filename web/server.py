"""The page to draw on, served by Python's own http.server.

  GET  /             the page, page.html
  POST /answer       a picture; what it shows comes back as JSON (answer_of)
  POST /save?name=7  a PNG; it is written into imp_dir as 7.png

What can't be done is answered by a status of 4xx or 5xx and one line of plain text. No other path
is served, and no other web site's page can ask anything: see check_sender.
"""

import base64
import contextlib
import errno
import io
import ipaddress
import json
import os
import re
import socket
import socketserver
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image, ImageDraw

from classifier.console import InputError, printable, warn
from classifier.files import make_folder, write_file
from classifier.opener import DECODE_ERRORS, error_reason, open_picture

if TYPE_CHECKING:  # it imports TensorFlow
    import numpy as np

    from classifier.predictions import Prediction, Reader

PAGE = Path(__file__).with_name("page.html")
MAX_BYTES = 20_000_000  # of a picture; a phone's largest photos have 15 MB
SILENCE = 10  # s without a byte, after which a connection is closed
BODY_SECONDS = 30  # s in which a picture has to arrive: 20 MB at 5 Mbit/s
MAX_BODIES = 50  # in memory at once, so that many large ones take no more than 1 GB; more wait
PNG = b"\x89PNG\r\n\x1a\n"
# A letter or digit, then what is plain text on every system; not Windows's names of devices.
FILE_NAME = re.compile(r"(?!(?:con|prn|aux|nul|com\d|lpt\d)\b)\w[\w .()+-]{0,59}", re.IGNORECASE)
# Nothing from another site, nor the page in a frame of one, where a click could be led astray.
POLICY = "img-src data: blob:; connect-src 'self'; form-action 'none'; frame-ancestors 'none'"


class RefusedError(Exception):
    """A request that can't be met: a status, and one line that says why."""

    def __init__(self, status: HTTPStatus, reason: str):
        super().__init__(reason)
        self.status = status


def serve(read: "Reader", folder: Path, handwriting: bool, host: str, port: int) -> None:
    """Serve the page, and open it in the user's browser, until the process is ended.

    Args:
        read: from the bytes of pictures to what they show, as digits.reading.reader gives it.
        folder: where drawings are saved.
        handwriting: whether the network reads what is drawn; else it is shown pictures alone.
        host: the address to serve at.
        port: the first port to try.

    Raises:
        InputError: the address isn't this machine's, or none of its ports can be had.
    """
    with listen(read, folder, handwriting, host, port) as server:
        address, free_port = server.server_address[:2]
        if free_port != port:
            warn(f"port {port} is taken; the page is at {free_port}")
        if not ipaddress.ip_address(address).is_loopback:
            warn("anyone on your network can open this page, and save drawings with it")
        address = own_address(address)
        url = f"http://{f'[{address}]' if ':' in address else address}:{free_port}/"
        print(f"{url}  (Ctrl-C stops)", flush=True)
        # Without a desktop it may be a browser for terminals, which would fill this one.
        if sys.platform in ("win32", "darwin") or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
            webbrowser.open(url)
        threading.Thread(target=server.warm_up, daemon=True).start()
        server.serve_forever()


def listen(read: "Reader", folder: Path, handwriting: bool, host: str, port: int) -> "Server":
    """A server at the first free port from `port` on. Arguments and errors as of serve."""
    for number in range(port, 65_536):
        try:
            return Server(read, folder, handwriting, host, number)
        except (socket.gaierror, UnicodeError):
            hint = "127.0.0.1 is this machine, 0.0.0.0 all addresses it has"
            raise InputError(f"--host {host}: no such address; {hint}") from None
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise InputError(f"--host {host}, --port {number}: {error.strerror}") from None
    raise InputError(f"--port {port}: it is taken, and so are all above it; name a lower one")


def own_address(address: str) -> str:
    """Where others reach a server that listens at the address, or at all that this machine has."""
    if address not in ("0.0.0.0", "::"):
        return address
    with contextlib.suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; the route says which address is used
        return probe.getsockname()[0]
    return socket.gethostname()


class Server(socketserver.ThreadingTCPServer):
    """Answers each request in a thread of its own, so that a slow client keeps none waiting."""

    allow_reuse_address = os.name == "posix"  # Windows would share a port that is taken
    daemon_threads = True
    request_queue_size = 256  # connections that wait; beyond that they try again after a second

    def __init__(self, read: "Reader", folder: Path, handwriting: bool, host: str, port: int):
        page = PAGE.read_text(encoding="utf-8")
        self.page = page if handwriting else page.replace("<body>", '<body class="no-drawing">')
        self.read, self.folder, self.host = read, folder, host
        self.reading = threading.Lock()  # one picture at a time: each takes all cores
        self.bodies = threading.BoundedSemaphore(MAX_BODIES)
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        super().__init__((host, port), Handler)

    def warm_up(self) -> None:
        """Read two strokes: TensorFlow takes half a second more for the first picture."""
        image = Image.new("L", (200, 100), "white")
        for left in (50, 150):
            ImageDraw.Draw(image).line((left, 20, left, 80), "black", 8)
        self.read_picture(to_png(image))

    def read_picture(self, picture: bytes) -> "Prediction":
        """What the picture shows; RefusedError if it can't be read."""
        reasons = []
        with self.reading:
            rows = self.read([picture], lambda _, reason: reasons.append(reason))
        if not rows:
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, reasons[0])
        return rows[0]

    def handle_error(self, request, client_address):
        """Print the traceback of a mistake in the program, not that a browser has gone."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """A request. The connection is closed after it, so that nothing unread is taken for another."""

    server: Server
    timeout = SILENCE

    def log_message(self, *arguments):
        """The terminal is the user's."""

    def do_GET(self):  # noqa: N802 - http.server's name, as the next
        self.respond({"/": self.page})

    def do_POST(self):  # noqa: N802
        self.respond({"/answer": self.answer, "/save": self.save})

    def respond(self, actions: dict[str, Callable[[], tuple[str, str]]]) -> None:
        """Send what the action of the path returns, a content type and a text, or why it can't."""
        length = self.headers.get("Content-Length", "")
        self.unread = int(length) if re.fullmatch("[0-9]{1,15}", length) else 0
        status = HTTPStatus.OK
        try:
            self.check_sender()
            action = actions.get(urlsplit(self.path).path)
            if action is None:
                raise RefusedError(HTTPStatus.NOT_FOUND, "no such page")
            content_type, text = action()
        except RefusedError as error:
            status, content_type, text = error.status, "text/plain", str(error)
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{content_type}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)
        for _ in self.body_parts():  # a browser that can't send it all doesn't read the answer
            pass

    def check_sender(self) -> None:
        """Refuse what a page of another web site sends.

        A browser puts into Origin whose page asks. A name that leads to this machine only since
        its owner says so (DNS rebinding) stands in Host; an address can't be such a name.
        """
        host = self.headers.get("Host", "")
        with contextlib.suppress(ValueError):
            name = urlsplit(f"//{host}").hostname
            if name not in ("localhost", self.server.host.lower(), socket.gethostname().lower()):
                ipaddress.ip_address(name)
            if urlsplit(self.headers.get("Origin", f"//{host}")).netloc == host:
                return
        raise RefusedError(HTTPStatus.FORBIDDEN, "this page answers only to itself")

    def page(self) -> tuple[str, str]:
        return "text/html", self.server.page

    def answer(self) -> tuple[str, str]:
        with self.server.bodies:
            prediction = self.server.read_picture(self.read_body())
        return "application/json", json.dumps(answer_of(prediction))

    def save(self) -> tuple[str, str]:
        (name,) = parse_qs(urlsplit(self.path).query).get("name", [""])[:1]
        with self.server.bodies:
            path = save_png(self.read_body(), self.server.folder, name)
        print(printable(f"saved: {path}"), flush=True)
        return "text/plain", path.name

    def read_body(self) -> bytes:
        if self.unread > MAX_BYTES:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"larger than {MAX_BYTES // 1_000_000} MB; make it smaller",
            )
        return b"".join(self.body_parts())

    def body_parts(self) -> Iterator[bytes]:
        """What hasn't been read of the request's body, as it arrives."""
        end = time.monotonic() + BODY_SECONDS
        while self.unread:
            part = self.rfile.read1(min(self.unread, 1 << 16))
            if not part:
                raise ConnectionAbortedError  # the client has gone
            self.unread -= len(part)
            yield part
            if time.monotonic() > end:
                raise TimeoutError  # which BaseHTTPRequestHandler takes for the connection's end


def answer_of(prediction: "Prediction") -> dict[str, Any]:
    """What the page shows of a prediction, as JSON has it."""
    image = prediction.network_input
    return {
        "label": prediction.label,
        "confidence": prediction.confidence,
        "unsure": prediction.is_unsure,
        "is_doubtful": prediction.is_doubtful,
        "second_guess": prediction.second_guess,
        "probabilities": list(prediction.probabilities.items()),
        "network_input": None if prediction.detections or image is None else png_url(image),
        "width": prediction.width,
        "detections": [
            {"box": part.box, "label": part.label, "unsure": part.is_unsure}
            for part in prediction.detections
        ],
    }


def png_url(image: "np.ndarray") -> str:
    """An image, uint8 [h, w] or [h, w, 3], as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(to_png(Image.fromarray(image))).decode()}"


def to_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def save_png(picture: bytes, folder: Path, name: str) -> Path:
    """Write a drawing into the folder, never over a file that is there; returns its path.

    Args:
        picture: a PNG.
        folder: is made if it is missing.
        name: of the file, with ".png" or without.

    Raises:
        RefusedError: of one of these nothing can be made.
    """
    if not FILE_NAME.fullmatch(name):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "a name has up to 60 letters, digits or -_.()+")
    path = folder / (name if name.lower().endswith(".png") else f"{name}.png")
    try:
        open_picture(picture)
        if not picture.startswith(PNG):
            raise ValueError("it is no PNG")
        make_folder(folder)
        path.touch(exist_ok=False)  # from here on the name is ours
        try:
            write_file(path, picture)
        except OSError:
            path.unlink()
            raise
    except FileExistsError:
        reason = f"{path.name} is there already; choose another name"
        raise RefusedError(HTTPStatus.CONFLICT, reason) from None
    except DECODE_ERRORS as error:
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, error_reason(error)) from None
    return path
