"""The likeliest way to share out pieces of ink among digits."""

from test_page import as_read

from digits.search import DROP, Usual, _score, best_partition


def test_best_partition_weighs_the_whole_against_its_parts():
    alone = {(1,): -1.0, (2,): -1.0, (3,): -0.1}
    assert best_partition([1, 2, 3], alone) == [(1,), (2,), (3,)]
    assert best_partition([1, 2, 3], {**alone, (1, 2): -1.5}) == [(1, 2), (3,)]
    assert best_partition([1, 2, 3], {**alone, (1, 2): -1.5, (1, 3): -0.2}) == [(1, 3), (2,)]


def test_best_partition_of_many():
    pairs = {(n, n + 1): -0.5 for n in range(0, 39)}
    alone = {(n,): -1.0 for n in range(40)}
    assert len(best_partition(list(range(40)), {**alone, **pairs})) == 20


def test_best_partition_gives_up_in_time_on_a_texture():
    heap = list(range(30))
    scores = {(n,): -1.0 for n in heap} | {(a, b): -0.5 for a in heap for b in heap if a < b}
    assert best_partition(heap, scores) == [(n,) for n in heap]


def test_what_is_as_wide_as_three_digits_costs_three_to_leave_unread():
    usual = Usual(tall=40, level=1, pen=3)
    costs = [_score((0,), as_read([(40, wide)], [0.0])[0], usual) for wide in (40, 120)]
    assert costs == [(-DROP, False), (-3 * DROP, False)]


def test_a_thing_higher_than_any_digit_costs_one_to_leave_unread():
    thing = as_read([(3 * 40, 3 * 40)], [0.0])[0]
    assert _score((0,), thing, Usual(tall=40, level=1, pen=3)) == (-DROP, False)
