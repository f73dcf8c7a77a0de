"""Several machines that train together, as TF_CONFIG says; here they are processes of one."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import SCRIPT, on_the_processor, save

from classifier import cluster, workers
from classifier.cluster import Worker
from classifier.console import InputError
from digits.drawn import draw
from setting import Setting
from tests import worker

TWO = {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}
FIRST = {"type": "worker", "index": 0}
PATIENCE = 120  # seconds for what takes ten, on a machine that is busy


def free_addresses(count: int) -> tuple[str, ...]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
    for each in sockets:
        each.close()
    return addresses


def environment(addresses: tuple[str, ...], index: int) -> dict[str, str]:
    task = {"type": "worker", "index": index}
    config = json.dumps({"cluster": {"worker": addresses}, "task": task})
    inherited = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    # Two machines can't have the same GPU.
    return inherited | {"TF_CONFIG": config, "CUDA_VISIBLE_DEVICES": "-1"}


# What TF_CONFIG says


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("{'cluster'", "TF_CONFIG is no JSON"),
        ("[]", "its cluster must list each machine"),
        ({"cluster": {"worker": ["10.0.0.1"]}, "task": FIRST}, "its cluster must list"),
        ({"cluster": {"worker": ["a:1", "a:1"]}, "task": FIRST}, "host and port once"),
        ({"cluster": {"worker": ["a:1", "b:70000"]}, "task": FIRST}, "its cluster must list"),
        ({"cluster": TWO}, "its task is null, and must be this machine's, type"),
        ({"cluster": TWO, "task": {"type": "worker"}}, "its task is .* index 0 to 1"),
        (
            {"cluster": TWO, "task": {"type": "worker", "index": 2}},
            r'"index": 2}, and must be .* type "worker", index 0 to 1 \(index counts',
        ),
        (
            {"cluster": TWO | {"chief": ["c:1"]}, "task": {"type": "chief", "index": 1}},
            'type "chief", index 0 or type "worker", index 0 to 1',
        ),
        ({"cluster": TWO, "task": {"type": "worker", "index": "0"}}, '"index": "0"}, and must be'),
        ({"cluster": TWO, "task": {"type": "ps", "index": 0}}, '"ps", "index": 0}, and must be'),
    ],
)
def test_a_mistake_in_tf_config_is_named(monkeypatch, said, complaint):
    monkeypatch.setenv("TF_CONFIG", said if type(said) is str else json.dumps(said))
    with pytest.raises(ValueError, match=complaint) as error:
        cluster.worker_from_tf_config()
    assert "\n" not in str(error.value)


def test_a_mistake_in_tf_config_ends_a_training_in_one_line_at_once():
    config = json.dumps({"cluster": TWO, "task": {"type": "worker", "index": 7}})
    done = subprocess.run(
        [sys.executable, SCRIPT, "--mode", "train"],
        env={**os.environ, "TF_CONFIG": config},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr.count("\n") == 1 and 'its task is {"type": "worker", "index": 7}' in done.stderr
    )


def test_tf_config_says_which_of_the_machines_this_one_is(monkeypatch):
    for cluster_said, task, expected in (
        (TWO, FIRST, Worker(tuple(TWO["worker"]), 0)),
        ({"chief": ["c:1"], "worker": ["w:2"]}, FIRST, Worker(("c:1", "w:2"), 1, chiefs=1)),
        ({"chief": ["c:1"]}, {"type": "chief", "index": 0}, None),  # one machine, as always
    ):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster_said, "task": task}))
        assert cluster.worker_from_tf_config() == expected
    monkeypatch.delenv("TF_CONFIG")
    assert cluster.worker_from_tf_config() is None


# Waiting for each other


def test_machines_begin_when_all_are_there(capsys):
    addresses = free_addresses(3)
    meetings = [
        threading.Thread(
            target=cluster.wait_for_workers, args=(Worker(addresses, index), {}), daemon=True
        )
        for index in range(3)
    ]
    for meeting in meetings[:2]:
        meeting.start()
    meetings[0].join(timeout=2)
    assert meetings[0].is_alive() and meetings[1].is_alive()
    meetings[2].start()
    for meeting in meetings:
        meeting.join(timeout=10)
        assert not meeting.is_alive()
    said = capsys.readouterr().out
    assert f"worker 3 of 3, {addresses[2]}" in said
    assert f"waiting for worker 3, {addresses[2]}\n" in said


def test_a_machine_that_was_asked_for_something_else_is_sent_away_and_may_come_again(capsys):
    addresses = free_addresses(2)
    first = threading.Thread(
        target=cluster.wait_for_workers, args=(Worker(addresses, 0), {"epochs": 5}), daemon=True
    )
    first.start()
    with pytest.raises(InputError, match="--epochs of worker 2 is 6, of worker 1 5"):
        cluster.wait_for_workers(Worker(addresses, 1), {"epochs": 6})
    cluster.wait_for_workers(Worker(addresses, 1), {"epochs": 5})
    first.join(timeout=10)
    assert not first.is_alive()
    assert "--epochs of worker 2 is 6, of worker 1 5" in capsys.readouterr().err


@pytest.mark.parametrize("index", [0, 1])
def test_who_has_waited_too_long_names_who_did_not_come(monkeypatch, index):
    monkeypatch.setattr(cluster, "MAX_WAIT", 1)
    addresses = free_addresses(2)
    with pytest.raises(InputError, match=f"waited 1 s for worker {2 - index}, 127.0.0.1"):
        cluster.wait_for_workers(Worker(addresses, index), {})


def test_a_machine_that_waits_ends_at_once_when_told_to():
    addresses = free_addresses(2)
    waiting = subprocess.Popen(
        [sys.executable, SCRIPT, "--mode", "train"],
        env=environment(addresses, 0),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stdout.readline() == f"worker 1 of 2, {addresses[0]}\n"
    assert waiting.stdout.readline() == f"waiting for worker 2, {addresses[1]}\n"
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait(timeout=PATIENCE) == 128 + signal.SIGTERM
    assert waiting.stderr.read() == ""


# Who is lost


def test_who_is_lost_is_found_by_what_tensorflow_calls_it(monkeypatch):
    message = "Socket closed /job:worker/replica:0/task:1; here is /job:worker/replica:0/task:0"
    for place, expected in (
        (Worker(("a:1", "b:1", "c:1"), 0), [1]),
        (Worker(("a:1", "b:1", "c:1"), 1, chiefs=1), [2]),
    ):
        monkeypatch.setattr(workers, "worker", place)
        assert workers.lost_workers(message) == expected


def test_who_is_frozen_is_lost_although_its_port_is_open(monkeypatch):
    monkeypatch.setattr(cluster, "RESPONSE_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as frozen, socket.create_server(("", 0)) as lively:
        addresses = ("a:1", *(f"127.0.0.1:{each.getsockname()[1]}" for each in (frozen, lively)))
        monkeypatch.setattr(workers, "worker", Worker(addresses, 0))
        threading.Thread(target=lambda: lively.accept()[0].sendall(b"here"), daemon=True).start()
        assert workers.lost_workers("Deadline Exceeded") == [1]


# Training


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What is left of two trainings by two machines, of which the second is killed in the third.

    one/      what one machine learns by itself
    plain/    what two learn without Dropout, as the one
    gpu/      the same, with a GPU each
    whole/    what two learn with Dropout
    killed/   the same, begun, and then gone on with
    """
    folder = tmp_path_factory.mktemp("machines")
    images, labels = draw(600, seed=1)
    for label in range(3):  # digits, but not all: the program adds none of its own
        for index in np.flatnonzero(labels == label)[:40]:
            save(folder / "train" / str(label), f"{index}.png", images[index])
            if label < 2:
                save(folder / "fewer" / str(label), f"{index}.png", images[index])

    def told(place: int, name: str, **more) -> dict:
        where = {"data_dir": str(folder / name)} if place == 0 else {}  # the others keep nothing
        setting = where | more.pop("setting", {})
        return {"setting": setting, "kept": str(folder / f"{name}-{place}.json"), **more}

    jobs = [
        [told(place, "plain"), told(place, "gpu", gpu=True), told(place, "whole", dropout=0.5)]
        for place in range(2)
    ]
    jobs[0] += [told(0, "killed", dropout=0.5)]
    jobs[1] += [told(1, "killed", dropout=0.5, kill=1)]
    together = begin(folder, "first", jobs)
    # One machine is this process: one more would take seconds to start.
    with on_the_processor(), pytest.MonkeyPatch.context() as patch:
        worker.get_ready(patch.setattr)
        worker.do([told(0, "one")], Setting(**given(folder)))
    end(folder, together)
    jobs = [
        [told(place, "differ", setting={"train_dir": str(folder / train_dir)})]
        + [told(place, "killed", dropout=0.5, setting={"is_restore": True})]
        for place, train_dir in enumerate(("train", "fewer"))
    ]
    end(folder, begin(folder, "second", jobs))
    return folder


def given(folder: Path) -> dict:
    """The setting of each machine, as far as its jobs don't say otherwise."""
    return {
        "train_dir": str(folder / "train"),
        "epochs": 3,
        "batch_size": 96,
        "precision": "float32",
    }


def begin(folder: Path, run: str, jobs: list[list[dict]]) -> list[tuple[str, subprocess.Popen]]:
    """A process for each machine's list of jobs."""
    addresses, machines = free_addresses(len(jobs)), []
    for place, told in enumerate(jobs):
        path = folder / f"{run}-jobs-{place}.json"
        path.write_text(json.dumps(told))
        machine = subprocess.Popen(
            [sys.executable, "-m", "tests.worker", path, json.dumps(given(folder))],
            env=environment(addresses, place) | {"TMPDIR": str(folder)},
            cwd=SCRIPT.parent,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        machines.append((f"{run}-{place}.json", machine))
    return machines


def end(folder: Path, machines: list[tuple[str, subprocess.Popen]]) -> None:
    """Keep each one's status and what it said on stderr in a file of its name."""
    for name, machine in machines:
        said = machine.communicate(timeout=PATIENCE)[1]
        (folder / name).write_text(json.dumps({"status": machine.returncode, "said": said}))


def kept(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def history(data_dir: Path) -> np.ndarray:
    """loss, acc, val_loss, val_acc of each epoch."""
    with open(data_dir / "report" / "history.csv", newline="") as file:
        return np.array([[float(v) for v in row[1:5]] for row in list(csv.reader(file))[1:]])


def last_epoch(data_dir: Path) -> str:
    with h5py.File(data_dir / "model_weight" / "last-epoch.weights.h5") as file:
        return file.attrs["sha256"]


def test_all_machines_have_the_same_weights(folder):
    for name in ("plain", "gpu", "whole"):
        assert kept(folder, f"{name}-0")["weights"] == kept(folder, f"{name}-1")["weights"]


@pytest.mark.parametrize("name", ["plain", "gpu"])
def test_two_machines_learn_what_one_does(folder, name):
    one, two = (kept(folder, f"{each}-0")["weights"] for each in ("one", name))
    for ours, theirs in zip(one, two, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(history(folder / "one"), history(folder / name), atol=1e-5)


def test_each_machine_draws_by_a_seed_of_its_own_as_often_as_the_others(folder):
    [[seed, drawn]], [[other_seed, other_drawn]] = (
        kept(folder, f"whole-{place}")["states"] for place in range(2)
    )
    assert seed != other_seed and drawn == other_drawn


def test_a_machine_that_is_lost_is_named_and_what_to_do(folder):
    assert kept(folder, "first-1")["status"] == -signal.SIGKILL
    first = kept(folder, "first-0")
    assert first["status"] == 1
    assert re.fullmatch(
        r"worker.py: worker 2, 127.0.0.1:\d+ is lost, .* --is_restore on all .*",
        first["said"].splitlines()[-1],
    )


def test_after_a_kill_the_machines_go_on_as_if_there_had_been_none(folder):
    assert [kept(folder, f"second-{place}")["status"] for place in range(2)] == [0, 0]
    assert last_epoch(folder / "killed") == last_epoch(folder / "whole")


def test_machines_with_different_folders_do_not_begin(folder):
    for place in range(2):
        assert re.fullmatch(
            ".*worker 1, .* has 96 pictures of 3 classes here, worker 2, .* 64 pictures of 2 "
            "classes; all machines need the same ones",
            kept(folder, f"second-{place}")["said"].splitlines()[0],
        )
    assert not (folder / "differ" / "report" / "history.csv").exists()
