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


@pytest.mark.parametrize("version", [2, 1])
def test_a_container_has_what_is_unused_of_its_limit_and_what_linux_keeps_of_files(
    tmp_path, monkeypatch, version
):
    _, limit, usage, prefix = machine.CGROUPS[2 - version]
    missing = (tmp_path / "no such group", limit, usage, prefix)
    monkeypatch.setattr(machine, "CGROUPS", (missing, (tmp_path, limit, usage, prefix)))
    (tmp_path / limit).write_text("3000\n")
    (tmp_path / usage).write_text("2900\n")
    stat = f"anon 300\n{prefix}inactive_file 1500\n{prefix}active_file 400\nshmem 600\n"
    (tmp_path / "memory.stat").write_text(stat)
    assert free_memory() == 100 + 1500 + 400
    (tmp_path / limit).write_text("500\n")
    assert free_memory() == 0
    (tmp_path / limit).write_text("max\n")
    assert free_memory() > 1_000_000
