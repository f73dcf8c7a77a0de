"""What a process may use of its machine, and what it is spared."""

import gc

import pytest

from classifier import machine
from classifier.machine import free_memory, no_garbage_collection


def is_searched(thing) -> bool:
    return any(found is thing for found in gc.get_objects())


def test_what_is_imported_is_never_searched_for_garbage():
    gc.unfreeze()
    with no_garbage_collection():
        assert not gc.isenabled()
        imported = ["a module"]
    assert gc.isenabled()
    assert not is_searched(imported)
    assert is_searched(["made afterwards"])


def test_garbage_is_searched_for_again_after_an_import_that_failed():
    with pytest.raises(ImportError), no_garbage_collection():
        raise ImportError
    assert gc.isenabled()


def test_a_container_s_memory_may_be_less_than_the_machine_s(tmp_path, monkeypatch):
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    limit.write_text("3000\n")
    used.write_text("1000\n")
    gone = tmp_path / "no such group"
    monkeypatch.setattr(machine, "CGROUPS", ((gone, gone), (limit, used)))
    assert free_memory() == 2000
    limit.write_text("max\n")
    assert free_memory() > 1_000_000
    limit.write_text("500\n")
    assert free_memory() == 0
