"""Intervals with known answers, and what must hold for all of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy
from scipy import stats as scipy_stats

from harness.judgement import Interval, mean_interval, paired_difference
from harness.judgement.intervals import Error, Floats, Part, holm


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_both_sources_count_weighted_with_their_variance() -> None:
    # Means of seeds 1, 2, 3; of examples 1, 2, 3 (times 1 ± 1): var/n = 1/3 each; the rest is zero.
    table = np.array([[0.0, 1, 2], [1, 2, 3], [2, 3, 4]])
    found = mean_interval(table)
    half = (2 / 3 * scipy_stats.t.ppf(0.975, 2)) / np.sqrt(2 / 3)
    assert (found.estimate, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half))
    assert (found.p, found.basis, found.seeds, found.examples) == (None, "3 seeds and 3 examples", 3, 3)


def test_the_noise_of_single_scores_is_counted_once() -> None:
    """By hand: seeds' means 1 and 2 (var 0.5), examples' 1, 1.5, 2 (var 0.25); rest ±0.5, 0, ∓0.5: MS 0.5 of 2 df."""
    table = np.array([[1.0, 1, 1], [1, 2, 3]])
    seeds, examples = 0.5 / 2, 0.25 / 3 - 0.5 / 6
    assert examples == pytest.approx(0)
    found = mean_interval(table)
    assert found.error.of_seeds is not None and found.error.of_examples is not None
    assert found.error.of_seeds.variance == pytest.approx(seeds)
    assert found.error.of_examples.variance == pytest.approx(0, abs=1e-12)
    assert found.high == pytest.approx(1.5 + scipy_stats.t.ppf(0.975, 1) * np.sqrt(seeds))


def test_one_seed_is_a_paired_t_test_over_the_examples() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 1, 30))
    found = paired_difference(a, b)
    expected = scipy_stats.ttest_rel(a[0], b[0])
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.p == pytest.approx(expected.pvalue, rel=1e-4)
    assert found.basis == "30 examples alone, of one seed"
    assert paired_difference(a[0], b[0]) == found, "one dimension is one seed"


def test_one_example_is_a_t_test_over_the_seeds() -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 4, 1))
    found = paired_difference(a, b)
    expected = scipy_stats.ttest_rel(a[:, 0], b[:, 0])
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.basis == "4 seeds"


def test_a_spread_over_seeds_that_is_small_by_chance_leaves_half_of_the_interval_over_the_examples() -> None:
    noise = np.random.default_rng(2).normal(size=(2, 200))
    noise -= noise.mean(axis=1, keepdims=True)
    found = mean_interval(noise)
    assert found.high is not None
    alone = mean_interval(noise.mean(axis=0))
    assert alone.high is not None
    assert found.high >= 0.5 * alone.high > 0


def test_where_there_is_no_spread_the_interval_has_no_width() -> None:
    ones = np.ones((3, 5))
    same, apart = paired_difference(ones, ones), paired_difference(0.3 + ones, ones)
    assert (same.estimate, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert apart.low == apart.high == apart.estimate == pytest.approx(0.3)
    assert apart.p == 0


def test_answers_that_are_all_right_leave_what_as_many_may_all_have_missed() -> None:
    """That a twentieth of all answers is wrong is seen in none of 20 with a probability of 0.95^20."""
    found = mean_interval(np.ones((3, 20)), span=1.0)
    assert (found.low, found.high) == pytest.approx((0.05 ** (1 / 20), 2 - 0.05 ** (1 / 20)))
    apart = paired_difference(np.ones((3, 20)), np.zeros((3, 20)), span=1.0)
    assert apart.p is not None and apart.p < 1e-9, "no share is hidden behind that"


def test_a_few_answers_that_differ_decide_nothing() -> None:
    """One method is right throughout, the other errs once in each run: a sign test of two or three gives p = 0.25."""
    for seeds in (2, 3):
        wrong = np.ones((seeds, 50))
        wrong[range(seeds), range(seeds)] = 0
        usual, found = (paired_difference(np.ones((seeds, 50)), wrong, span=span) for span in (None, 1.0))
        assert usual.p is not None and usual.p < 0.05, "the variances alone would call it better"
        assert found.p is not None and found.p > 0.25 and found.low is not None and found.low < 0
        assert found.p == pytest.approx((1 - 0.02) ** 50, rel=1e-4)


def test_one_wrong_answer_of_fifty_leaves_as_much_open_as_none() -> None:
    """Its standard error of 0.02 would end the interval at 0.94; 50 answers may all have missed 5.8 % of all."""
    found = mean_interval([[0.0] + [1.0] * 49], span=1.0)
    assert found.error.stderr == pytest.approx(0.02)
    assert found.low == pytest.approx(0.98 - (1 - 0.05 ** (1 / 50)))


def test_scores_between_right_and_wrong_have_variances_that_count() -> None:
    scores = np.random.default_rng(0).beta(5, 5, size=(3, 8))
    assert mean_interval(scores, span=1.0) == mean_interval(scores)
    assert paired_difference(scores, 1 - scores, span=1.0) == paired_difference(scores, 1 - scores)
    twice = np.vstack([scores, scores])
    assert paired_difference(twice, twice, span=1.0).high == pytest.approx(1 - 0.05 ** (1 / 8)), "all differences are 0"


@pytest.mark.parametrize(
    ("a", "b"),
    [([[np.nan, np.nan]], [[1, 2]]), ([[1, np.nan]], [[np.nan, 2]]), ([[]], [[]]), ([[np.inf]], [[1]])],
)
def test_nothing_in_common_is_no_interval(a: list[list[float]], b: list[list[float]]) -> None:
    assert paired_difference(a, b) == Interval(None, None, None, None, "none")


def test_one_score_has_no_interval() -> None:
    found = paired_difference([[0.5]], [[0.25]])
    assert (found.estimate, found.low, found.high, found.p, found.basis) == (0.25, None, None, None, "none")


def test_shapes_that_differ_are_an_error() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        paired_difference(np.ones((2, 3)), np.ones((3, 3)))
    with pytest.raises(ValueError, match="shape"):
        mean_interval(np.ones((2, 2, 2)))


def test_seeds_and_examples_that_one_lacks_are_left_out_and_counted() -> None:
    a, b = np.random.default_rng(3).normal(size=(2, 5, 40))
    a[0], b[1], a[:, :3] = np.nan, np.nan, np.nan
    found = paired_difference(a, b)
    assert found == paired_difference(a[2:, 3:], b[2:, 3:])
    assert (found.seeds, found.examples, found.basis) == (3, 37, "3 seeds and 37 examples")


def test_a_missing_score_moves_little() -> None:
    random = np.random.default_rng(4)
    table = random.normal(size=(3, 1)) + random.normal(size=40) + random.normal(0, 0.1, size=(3, 40))
    whole = mean_interval(table)
    table[1, 7] = np.nan
    holed = mean_interval(table)
    assert (holed.estimate, holed.low, holed.high) == pytest.approx((whole.estimate, whole.low, whole.high), abs=0.02)
    assert (holed.seeds, holed.examples) == (3, 40)


def test_seeds_with_no_example_in_common_do_not_break_it() -> None:
    table = np.full((2, 6), np.nan)
    table[0, :3], table[1, 3:] = 1.0, 2.0
    found = mean_interval(table)
    assert found.estimate is not None and found.low is not None
    assert found.low <= found.estimate <= (found.high or 0)


def test_examples_from_one_source_are_one_draw() -> None:
    one = np.random.default_rng(5).normal(size=(3, 20))
    several = np.repeat(one, 4, axis=1)
    found = mean_interval(several, clusters=np.repeat(np.arange(20), 4).tolist())
    alone = mean_interval(one)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))
    assert found.examples == 20
    plain = mean_interval(several)
    assert plain.low is not None and found.low is not None and plain.low > found.low


def test_holm_by_hand() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 8))
VALUES = st.sampled_from([0.0, 1.0, 0.5, -2.0, 0.25]) | st.floats(-3, 3, width=16)
PAIRS = SHAPES.flatmap(
    lambda shape: st.tuples(
        *[of_numpy.arrays(np.float64, shape, elements=VALUES | st.just(np.nan)) for _ in range(2)],
        st.permutations(range(shape[0])),
        st.permutations(range(shape[1])),
    )
)


def close(a: Interval, b: Interval) -> bool:
    one, other = ((i.estimate, i.low, i.high, i.p) for i in (a, b))
    same = all((x is None) == (y is None) for x, y in zip(one, other, strict=True))
    numbers = [[x for x in four if x is not None] for four in (one, other)]
    return a.basis == b.basis and same and numbers[0] == pytest.approx(numbers[1], rel=1e-3, abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(PAIRS)
def test_what_holds_for_every_difference(drawn: tuple[Floats, Floats, list[int], list[int]]) -> None:
    a, b, seeds, examples = drawn
    found = paired_difference(a, b)
    if found.low is not None:
        assert found.estimate is not None and found.high is not None and found.p is not None
        assert found.low <= found.estimate <= found.high
        assert 0 <= found.p <= 1
        if found.low < found.high:  # where the interval just reaches zero, rounding decides
            assert (found.p < 0.0499) <= (found.low > 0 or found.high < 0) <= (found.p < 0.0501)
    turned = paired_difference(b, a)
    estimate, low, high = (None if x is None else -x for x in (turned.estimate, turned.high, turned.low))
    mirrored = Interval(estimate, low, high, turned.p, turned.basis)
    assert close(found, mirrored), "antisymmetric"
    assert close(found, paired_difference(a + 4, b + 4)), "a shift of both changes nothing"
    assert close(found, paired_difference(a[seeds][:, examples], b[seeds][:, examples])), "nor does the order"
    more = np.pad(a, ((0, 1), (0, 1)), constant_values=np.nan)
    assert close(found, paired_difference(more, np.pad(b, ((0, 1), (0, 1))))), "nor does what only one of them has"
    shifted = paired_difference(a + 0.5, b)
    assert (shifted.estimate is None) == (found.estimate is None)
    if found.low is not None and found.high is not None and found.low < found.high:
        assert (shifted.low, shifted.high) == pytest.approx((found.low + 0.5, found.high + 0.5), abs=1e-6)


def test_sources_stay_with_their_examples_where_some_were_not_scored() -> None:
    scores, sources = np.random.default_rng(6).normal(size=(3, 6)), ["a", "b", "b", "c", "d", "d"]
    holed = scores.copy()
    holed[:, 0] = np.nan
    assert mean_interval(holed, sources) == mean_interval(scores[:, 1:], sources[1:])


def test_sources_weigh_as_many_examples_as_they_have() -> None:
    found = mean_interval([[1.0, 0.0, 1.0, 1.0, 0.0, 0.5]], ["a", "a", "b", "b", "b", "c"])
    assert found.estimate == pytest.approx(3.5 / 6)
    assert found.error.stderr == pytest.approx(np.sqrt(1.5 * ((1 / 6) ** 2 + 0.25**2 + (1 / 12) ** 2)) / 6)


def test_what_was_filled_in_is_no_degree_of_freedom() -> None:
    assert mean_interval([[1.0, 1.0, 1.0], [1.0, 2.0, np.nan]]).error.rest == pytest.approx(0.25 / 6)


def test_where_most_would_be_filled_only_what_is_complete_counts() -> None:
    scores = [[1.0, np.nan, 3.0], [2.0, 4.0, np.nan]]
    for sources in (None, ["a", "b", "b"]):
        found = mean_interval(scores, sources)
        assert (found.estimate, found.examples) == (1.5, 1)


def test_the_examples_alone_count_for_more_at_smaller_levels() -> None:
    error = Error(Part(0.0, 2), Part(0.0, 9), Part(1.0, math.inf))
    assert error.half_width(0.05) == pytest.approx(0.5 * 1.959964)
    assert error.half_width(0.0005) == pytest.approx(0.95 * 3.480756, rel=1e-4)
