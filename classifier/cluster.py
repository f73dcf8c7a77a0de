"""The machines of one training, as TF_CONFIG names them, and waiting until all of them are there.

TensorFlow waits for them, too, but prints nothing, and ignores Ctrl-C and SIGTERM meanwhile. So the
others first connect to the first machine at its own address, and when all have, they begin.
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

MAX_WAIT = 600  # seconds: a scheduler may have to fetch the program's image on some machines
RETRY_INTERVAL = 0.5  # seconds between two tries
RESPONSE_TIMEOUT = 5  # seconds: whoever connects and sends nothing isn't one of the workers
BEGIN = "begin"  # the first machine's answer to a worker, or else what is wrong with it
EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


class Worker(NamedTuple):
    """The machines of a training, and which of them this one is."""

    addresses: tuple[str, ...]  # "host:port" of each; the first keeps what is learned
    index: int
    chiefs: int = 0  # so many, from the first on, are called chief in TF_CONFIG, not worker

    def name(self, index: int) -> str:
        """A machine in messages: "worker 2, 10.0.0.2:2222"."""
        return f"worker {index + 1}, {self.addresses[index]}"

    def host_and_port(self, index: int) -> tuple[str, int]:
        """Where a machine listens."""
        host, port = self.addresses[index].rsplit(":", 1)
        return host.strip("[]"), int(port)  # an IPv6 address stands in brackets


# ---------------------------------------------------------------- TF_CONFIG


def worker_from_tf_config() -> Worker | None:
    """This machine, by TF_CONFIG; None if that is not set, or names one machine only.

    Raises:
        ValueError: it is wrong; the message is one line.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"TF_CONFIG is no JSON ({error}); it looks like {EXAMPLE}") from None
    machines = {}  # from (job, index) to its address
    try:
        for job in ("chief", "worker"):  # a chief is the first of the workers by another name
            for index, address in enumerate(config["cluster"].get(job, [])):
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
        task = (config["task"]["type"], config["task"]["index"])
    except (KeyError, TypeError):
        task = ("", None)
    if task not in list(machines) or type(task[1]) is not int:
        counts = Counter(job for job, _ in machines)
        ranges = {job: f"0 to {count - 1}" if count > 1 else "0" for job, count in counts.items()}
        known = " or ".join(f'type "{job}", index {numbers}' for job, numbers in ranges.items())
        raise ValueError(
            f"TF_CONFIG: its task is {json.dumps(config.get('task'))}, and must be this machine's, "
            f"{known} (index counts from 0)"
        )
    chiefs = sum(job == "chief" for job, _ in machines)
    worker = Worker(tuple(machines.values()), list(machines).index(task), chiefs)
    return worker if len(machines) > 1 else None


def check_tf_config() -> Worker | None:
    """As worker_from_tf_config; but a mistake ends the program with one line and status 2."""
    try:
        return worker_from_tf_config()
    except ValueError as error:
        warn(f"{Path(sys.argv[0]).name}: {error}")
        sys.exit(2)


# ---------------------------------------------------------------- waiting


class Waiting:
    """Prints what this machine waits for, whenever that changes, and gives up after MAX_WAIT."""

    def __init__(self):
        self.deadline, self.reason = time.monotonic() + MAX_WAIT, ""

    def wait_for(self, reason: str) -> None:
        """Raise InputError if this machine has waited too long."""
        if time.monotonic() > self.deadline:
            raise InputError(
                f"waited {MAX_WAIT:.0f} s for {self.reason or reason}; is the program started "
                "there, with the same list in TF_CONFIG, and its port open to this machine?"
            )
        if reason != self.reason:
            self.reason = reason
            print(f"waiting for {reason}", flush=True)


def wait_for_workers(worker: Worker, flags: dict[str, Any]) -> None:
    """Print which machine this is, and wait until all are there.

    Args:
        worker: this machine.
        flags: its settings that all machines must have the same, in terms of JSON.

    Raises:
        InputError: the others didn't come in time; or this one differs from the first.
    """
    print(f"worker {worker.index + 1} of {len(worker.addresses)}, {worker.addresses[worker.index]}")
    addresses = ", ".join(worker.addresses)
    task = {"TF_CONFIG": addresses} | {f"--{name}": value for name, value in flags.items()}
    waiting = Waiting()
    with listen(worker, waiting) as server:
        if worker.index == 0:
            accept_workers(worker, task, waiting, server)
    if worker.index > 0:
        join_first_worker(worker, task, waiting)


def listen(worker: Worker, waiting: Waiting) -> socket.socket:
    """This machine's port, as soon as it is free: an earlier training may be about to end."""
    port = worker.host_and_port(worker.index)[1]
    while True:
        try:
            server = socket.create_server(("", port))
            server.settimeout(RETRY_INTERVAL)
            return server
        except OSError as error:
            waiting.wait_for(f"port {port} of this machine ({error.strerror or error})")
            time.sleep(RETRY_INTERVAL)


def accept_workers(
    worker: Worker, task: dict[str, Any], waiting: Waiting, server: socket.socket
) -> None:
    """The first machine's part: wait until all others have connected, then have them begin."""
    connections: dict[int, socket.socket] = {}
    while missing := sorted(set(range(1, len(worker.addresses))) - connections.keys()):
        waiting.wait_for(" and ".join(map(worker.name, missing)))
        connections = {index: each for index, each in connections.items() if is_open(each)}
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):  # not a worker's
            connection, _ = server.accept()
            connection.settimeout(RESPONSE_TIMEOUT)
            index, its_task = json.loads(connection.makefile().readline())
            fault = difference(task, its_task, f"worker {index + 1}")
            if not fault and index in connections:
                fault = f"another machine is worker {index + 1} already"
            if fault:
                connection.sendall(f"{fault}\n".encode())
                warn(f"a machine was sent away: {fault}")
            elif index in missing:
                connections[index] = connection
    for connection in connections.values():
        with contextlib.suppress(OSError):  # lost now, as it could be a second later
            connection.sendall(f"{BEGIN}\n".encode())


def is_open(connection: socket.socket) -> bool:
    """Whether the other side, which sends nothing now, still waits."""
    connection.settimeout(0)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def join_first_worker(worker: Worker, task: dict[str, Any], waiting: Waiting) -> None:
    """Another machine's part: connect to the first until it says to begin."""
    while True:
        waiting.wait_for(worker.name(0))
        with contextlib.suppress(OSError):
            with socket.create_connection(worker.host_and_port(0), RESPONSE_TIMEOUT) as connection:
                connection.sendall(f"{json.dumps([worker.index, task])}\n".encode())
                connection.settimeout(max(RETRY_INTERVAL, waiting.deadline - time.monotonic()))
                waiting.wait_for(f"the others, with {worker.name(0)}")
                answer = connection.makefile(encoding="utf-8").readline().rstrip("\n")
            if answer == BEGIN:
                return
            if answer:
                raise InputError(f"{worker.name(0)} sent this one away: {answer}")
        time.sleep(RETRY_INTERVAL)


def difference(task: dict[str, Any], other: dict[str, Any], name: str) -> str | None:
    """How another machine's task differs from the first machine's, in words; None if it doesn't."""
    for key in [*task, *other]:
        value, first_value = (each.get(key, "not given") for each in (other, task))
        if value != first_value:
            return f"{key} of {name} is {value}, of worker 1 {first_value}"
    return None
