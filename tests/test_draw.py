"""What the server of the page to draw on promises; test_draw_page.py has what the page does."""

import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classifier.console import InputError
from classifier.predictions import Detection, Prediction
from tests.networks import DATA
from web import server as web

ROOT = Path(__file__).parents[1]
BLACK = np.zeros((28, 28, 3), np.uint8)


def png(width: int = 70, kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, 5)).save(file, kind)
    return file.getvalue()


def read(pictures, on_error):
    """A reader that says how wide a picture is, and is unsure of a narrow one."""
    try:
        (picture,) = (Image.open(io.BytesIO(content)) for content in pictures)
    except OSError:
        on_error(pictures[0], "it is no picture")
        return []
    label, sure = str(picture.width), picture.width / 100
    part = Detection(0, 0, (1, 2, 3, 4), label, sure, "1", 0.1, is_unsure=True)
    row = Prediction("", label, sure, "1", 0.1, None, BLACK, is_unsure=sure < 0.6)
    if picture.width < 50:
        return [row._replace(detections=(part,), width=picture.width)]
    return [row._replace(probabilities={"1": 0.1, label: sure})]


@pytest.fixture
def server(tmp_path):
    with web.listen(read, tmp_path / "tmp", True, "127.0.0.1", 8000) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def ask(server):
    """A function that sends a request as a browser does, and gives the status and the text."""

    def send(method, path, body=None, **headers):
        address = f"127.0.0.1:{server.server_address[1]}"
        connection = http.client.HTTPConnection(address, timeout=20)
        host = headers.pop("host", address)
        connection.request(method, path, body, {"Host": host, **headers})
        response = connection.getresponse()
        return response.status, response.read().decode()

    return send


def test_the_page_asks_no_other_site_for_anything(ask):
    status, page = ask("GET", "/")
    assert status == 200 and 'id="sheet"' in page
    assert set(re.findall(r"\w+://[\w.]+", page)) == {"http://www.w3.org"}  # SVG's name, no address


def test_a_picture_is_answered_with_all_probabilities_and_what_the_network_saw(ask):
    status, text = ask("POST", "/answer", png(70))
    answer = json.loads(text)
    assert status == 200 and answer["label"] == "70" and not answer["unsure"]
    assert answer["probabilities"] == [["1", 0.1], ["70", 0.7]] and answer["detections"] == []
    assert answer["network_input"].startswith("data:image/png;base64,")
    assert json.loads(ask("POST", "/answer", png(55))[1])["unsure"]


def test_of_several_digits_each_has_its_frame(ask):
    answer = json.loads(ask("POST", "/answer", png(30))[1])
    assert answer["detections"] == [{"box": [1, 2, 3, 4], "label": "30", "unsure": True}]
    assert answer["width"] == 30 and answer["network_input"] is None


def test_what_is_no_picture_is_named_in_a_line(ask):
    for body in (b"", b"no picture", b"<svg/>"):
        assert ask("POST", "/answer", body) == (422, "it is no picture")


@pytest.mark.parametrize("path", ["/answer", "/save?name=7"])
def test_twenty_megabytes_are_too_much(ask, path):
    status, text = ask("POST", path, bytes(web.MAX_BYTES + 1))
    assert status == 413 and "larger than 20 MB" in text
    assert ask("POST", "/answer", png() + bytes(web.MAX_BYTES - len(png())))[0] == 200


PATHS = """
/setting.py /../setting.py /%2e%2e/setting.py //etc/passwd /web/page.html /page.html
/?/../../etc/passwd http://127.0.0.1/etc/passwd /favicon.ico
"""


@pytest.mark.parametrize("path", PATHS.split())
def test_no_path_is_served_but_the_page(ask, path):
    status, text = ask("GET", path)
    assert status == 404 or 'id="sheet"' in text
    assert "root:" not in text and "class Setting" not in text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT"])
def test_other_methods_are_refused(ask, method):
    assert ask(method, "/")[0] == 501


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "", "127.0.0.1.evil", "[::1"]
)
def test_a_name_that_is_not_this_machines_gets_nothing(ask, tmp_path, host):
    for request in (("GET", "/"), ("POST", "/answer", png()), ("POST", "/save?name=7", png())):
        assert ask(*request, host=host) == (403, "this page answers only to itself")
    assert not (tmp_path / "tmp").exists()


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "[::1]:8000", "192.168.1.5:8000"])
def test_this_machines_addresses_get_the_page_through_any_port(ask, host):
    assert ask("GET", "/", host=host)[0] == 200
    assert ask("POST", "/answer", png(), host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "file://"])
def test_other_sites_can_not_post(ask, tmp_path, origin):
    for path in ("/answer", "/save?name=7"):
        assert ask("POST", path, png(), Origin=origin) == (403, "this page answers only to itself")
    assert not (tmp_path / "tmp").exists()


@pytest.mark.parametrize(
    ("name", "file"), [("7", "7.png"), ("7.PNG", "7.PNG"), ("七 (2)", "七 (2).png")]
)
def test_a_drawing_is_saved_under_the_name_given(ask, tmp_path, name, file, capsys):
    quoted = "/save?name=" + "".join(f"%{byte:02x}" for byte in name.encode())
    assert ask("POST", quoted, png()) == (200, file)
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == [file]
    assert (tmp_path / "tmp" / file).read_bytes() == png()
    assert f"saved: {tmp_path / 'tmp' / file}" in capsys.readouterr().out


def test_a_file_that_is_there_is_never_written_over(ask, tmp_path):
    assert ask("POST", "/save?name=7", png(70))[0] == 200
    status, text = ask("POST", "/save?name=7.png", png(71))
    assert status == 409 and "7.png is there already" in text
    assert (tmp_path / "tmp" / "7.png").read_bytes() == png(70)
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda n: ask("POST", "/save?name=8", png(10 + n))[0], range(8)))
    assert sorted(done) == [200] + 7 * [409]


NAMES = ". .. .hidden ../7 ..%2f7 a/b a%5cb c:7 7%00 7%0a %ff/ -7 CON nul.png"


@pytest.mark.parametrize("name", ["", "x" * 61, *NAMES.split()])
def test_a_name_can_lead_nowhere_else(ask, tmp_path, name):
    status, text = ask("POST", f"/save?name={name}", png())
    assert status == 400 and "letters" in text
    assert not list(tmp_path.rglob("*.png"))


def test_only_a_png_is_saved(ask, tmp_path):
    for body, reason in ((b"no picture", "it is no picture"), (png(kind="bmp"), "it is no PNG")):
        assert ask("POST", "/save?name=7", body) == (422, reason)
    assert not (tmp_path / "tmp").exists()


def test_where_nothing_can_be_written_the_page_is_told(ask, tmp_path):
    (tmp_path / "tmp").write_text("a file")
    status, text = ask("POST", "/save?name=7", png())
    assert status == 422 and "a folder is wanted here" in text


def test_two_hundred_at_once_are_all_answered(ask):
    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda n: ask("POST", "/answer", png(50 + n % 50)), range(200)))
    assert [json.loads(text)["label"] for _, text in answers] == [
        str(50 + n % 50) for n in range(200)
    ]


def test_slow_clients_and_those_that_go_keep_nobody_waiting(server, ask, monkeypatch, capfd):
    monkeypatch.setattr(web.Handler, "timeout", 1)
    head = b"POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    clients = []
    for sent in (b"", b"POST /ans", head, head + b"half"):
        for _ in range(3):
            clients.append(socket.create_connection(server.server_address, timeout=5))
            clients[-1].sendall(sent)
    begun = time.monotonic()
    assert ask("POST", "/answer", png())[0] == 200
    assert time.monotonic() - begun < 1
    for gone in clients[::3]:
        gone.close()
    for slow in clients[1::3]:
        assert slow.recv(100) == b""  # its connection is closed
    for killed in clients[2::3]:  # it sends a reset, as a killed browser does
        killed.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        killed.close()
    assert ask("POST", "/answer", png())[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_client_that_drips_has_thirty_seconds(server, monkeypatch):
    monkeypatch.setattr(web, "BODY_SECONDS", 0.3)
    with socket.create_connection(server.server_address, timeout=5) as client:
        client.sendall(b"POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        with pytest.raises(ConnectionError):
            for _ in range(100):
                client.sendall(b"x")
                time.sleep(0.05)


def test_of_a_taken_port_the_next_is_taken(server, tmp_path):
    port = server.server_address[1]
    with web.listen(read, tmp_path, True, "127.0.0.1", port) as second:
        assert port < second.server_address[1] < port + 100


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7", "a b"])
def test_an_address_of_another_machine_is_refused_in_a_line(tmp_path, host):
    with pytest.raises(InputError, match=f"--host {host}.*") as error:
        web.listen(read, tmp_path, True, host, 8000)
    assert "\n" not in str(error.value)


# What mnist_keras.py does with a page, without the seconds of TensorFlow's import.
COMMAND = """
import sys, webbrowser
from pathlib import Path
from classifier.console import one_line_errors
from web import server
webbrowser.open = lambda url: print("opened", url, flush=True)
with one_line_errors():
    server.serve(lambda pictures, on_error: ["an answer"], Path("nowhere"), True, sys.argv[1], 8000)
"""


@pytest.fixture
def start():
    """A function that starts a command, and gives it and the address that it prints."""
    commands = []

    def command(*words):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
        commands.append(subprocess.Popen([sys.executable, *words], cwd=ROOT, **pipes))
        line = next(line for line in commands[-1].stdout if line.startswith("http"))
        return commands[-1], line.split("  ")

    yield command
    for each in commands:
        each.kill()
        each.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows can't send these signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_and_sigterm_end_it_at_once(start, name):
    command, (url, hint) = start("-c", COMMAND, "127.0.0.1")
    assert hint == "(Ctrl-C stops)\n"
    client = socket.create_connection(("127.0.0.1", int(re.search(r":(\d+)/", url)[1])))
    client.sendall(b"POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf")
    begun = time.monotonic()
    command.send_signal(getattr(signal, name))
    assert command.wait(timeout=10) == 128 + getattr(signal, name)
    assert time.monotonic() - begun < 1
    assert "Traceback" not in command.communicate()[1]


def test_that_the_network_can_reach_it_is_said(start):
    command, (url, _) = start("-c", COMMAND, "0.0.0.0")
    assert re.fullmatch(r"http://[\w.-]+:\d+/", url) and "0.0.0.0" not in url
    command.kill()
    assert "anyone on your network can open this page" in command.communicate()[1]
    command, _ = start("-c", COMMAND, "127.0.0.1")
    command.kill()
    assert "network" not in command.communicate()[1]


def test_mode_draw_answers_as_predict_does(start, read_file, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    picture = DATA / "tmp" / "3.png"
    _, (url, _) = start("mnist_keras.py", "--mode", "draw", "--checkpoint_path", DATA / "shipped")
    with urllib.request.urlopen(f"{url}answer", picture.read_bytes()) as response:
        answer = json.load(response)
    row = read_file(picture)
    assert (answer["label"], answer["confidence"]) == (row.label, pytest.approx(row.confidence))
    assert [label for label, _ in answer["probabilities"]] == list("0123456789")
    assert dict(answer["probabilities"])[row.label] == pytest.approx(row.confidence)
