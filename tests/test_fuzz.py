"""Damaged and hostile files end in one clear line: a short form of `python -m tests.fuzz`."""

import fuzz
import pytest

needs_limits = pytest.mark.skipif(
    not fuzz.CAN_LIMIT, reason="only Linux limits a process's time and memory"
)


@needs_limits
@pytest.mark.parametrize("name", fuzz.KINDS)
def test_no_damaged_file_breaks_its_reader(name):
    failures = {seed: fuzz.try_case(name, seed) for seed in range(8)}
    assert {seed: found for seed, found in failures.items() if found} == {}


def test_the_same_seed_makes_the_same_case(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = (fuzz.write_case(fuzz.made("png"), 3, tmp_path / name) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    other = fuzz.write_case(fuzz.made("png"), 4, tmp_path / "two")
    assert other.read_bytes() != one.read_bytes()
