"""Batches of similar lengths: every example once an epoch, in an order of the seed, with little padding."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness.training.batches import SORTED_TOGETHER, SimilarLengths


def batches(sampler: SimilarLengths, size: int) -> list[list[int]]:
    order = list(sampler)
    return [order[start : start + size] for start in range(0, len(order), size)]


def padding(lengths: list[int], size: int, order: list[list[int]]) -> float:
    slots = sum(max(lengths[i] for i in batch) * len(batch) for batch in order)
    return 1 - sum(lengths) / slots


@given(st.lists(st.integers(1, 500), max_size=120), st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_has_every_example_once(lengths: list[int], size: int, seed: int) -> None:
    sampler = SimilarLengths(lengths, size, seed)
    assert len(sampler) == len(lengths)
    for _ in range(2):
        assert sorted(sampler) == list(range(len(lengths)))


@given(st.lists(st.integers(1, 500), min_size=2, max_size=60), st.integers(2, 5), st.integers(0, 3))
def test_only_the_last_batch_is_incomplete_and_no_batches_of_a_group_overlap(
    lengths: list[int], size: int, seed: int
) -> None:
    """Up to eight batches are one group: sorted, each batch's longest is no longer than the next one's shortest."""
    full = [batch for batch in batches(SimilarLengths(lengths, size, seed), size) if len(batch) == size]
    assert len(full) == len(lengths) // size
    if len(full) <= SORTED_TOGETHER:
        spans = sorted((min(lengths[i] for i in batch), max(lengths[i] for i in batch)) for batch in full)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_the_order_is_that_of_the_seed_and_new_in_every_epoch() -> None:
    lengths = [60 + 37 * i % 120 for i in range(64)]
    one, again, other = (SimilarLengths(lengths, 8, seed) for seed in (0, 0, 1))
    first = batches(one, 8)
    assert first == batches(again, 8) != batches(other, 8)
    assert first != batches(one, 8)


def test_batches_do_not_come_by_length() -> None:
    """A rate that falls over the steps must not meet long examples first and short ones last."""
    lengths = list(range(64))
    longest = [max(batch) for batch in batches(SimilarLengths(lengths, 8, 0), 8)]
    assert sorted(longest) not in (longest, longest[::-1])


def test_the_incomplete_batch_is_drawn_and_not_the_longest_examples() -> None:
    lengths = list(range(11))
    last = {tuple(sorted(batches(SimilarLengths(lengths, 4, seed), 4)[-1])) for seed in range(8)}
    assert len(last) > 4


def test_ragged_data_is_padded_little() -> None:
    """Lengths as those of E2E NLG: batches drawn at random are a sixth of padding."""
    lengths = np.random.default_rng(0).triangular(69, 100, 175, size=512).round().astype(int).tolist()
    at_random = [list(range(start, start + 8)) for start in range(0, 512, 8)]
    assert padding(lengths, 8, at_random) > 0.15
    assert padding(lengths, 8, batches(SimilarLengths(lengths, 8, 0), 8)) < 0.05
