"""By simulation: nominal 95 % intervals cover 95 %, and equal methods are rarely called different.

Two equal methods answer the same examples, which differ in difficulty; a training run is better or worse on all of
them by a normal deviate in logits. Scores are right or wrong (binary), or shares with noise (continuous).
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.special import expit

from harness.judgement.intervals import Floats, mean_interval, paired_difference

SEEDS = (2, 3, 5, 10)


def scores(random: np.random.Generator, shape: tuple[int, int], of_seeds: float, binary: bool, hard: Floats) -> Floats:
    """Scores of one method of shape (seeds, examples)."""
    right = expit(0.85 + random.normal(0, of_seeds, (shape[0], 1)) + hard)
    noisy = random.random(shape) < right if binary else np.clip(right + random.normal(0, 0.15, shape), 0, 1)
    return np.asarray(noisy, dtype=np.float64)


def coverage(seeds: int, examples: int, of_seeds: float, binary: bool, runs: int) -> float:
    """How often the interval of the difference of two equal methods holds zero."""
    random = np.random.default_rng([seeds, examples, int(100 * of_seeds), binary])
    hits = 0
    for _ in range(runs):
        hard = random.normal(0, 1.2, examples)
        a, b = (scores(random, (seeds, examples), of_seeds, binary, hard) for _ in range(2))
        found = mean_interval(a - b)
        assert found.low is not None and found.high is not None
        hits += found.low <= 0 <= found.high
    return hits / runs


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "continuous"])
def test_a_few_settings_cover_what_they_say(binary: bool) -> None:
    """Where one number of degrees of freedom fails: two or three seeds whose spread is like that of single scores."""
    found = {(seeds, 100): coverage(seeds, 100, 0.1, binary, 400) for seeds in (2, 3)}
    assert min(found.values()) >= 0.92, found
    assert np.mean(list(found.values())) <= 0.98, found


@pytest.mark.slow
def test_every_setting_covers_what_it_says() -> None:
    settings = list(product(SEEDS, (30, 200, 2000), (0.0, 0.1, 0.4), (True, False)))
    found = {one: coverage(*one, runs=150 if one[0] * one[1] > 5000 else 500) for one in settings}
    for seeds in SEEDS:
        of_these = [share for one, share in found.items() if one[0] == seeds]
        assert 0.93 <= np.mean(of_these) <= 0.97, (seeds, np.mean(of_these))
        assert min(of_these) >= (0.90 if seeds == 2 else 0.92), {k: v for k, v in found.items() if k[0] == seeds}


def covered(logit: float, seeds: int, examples: int, runs: int) -> tuple[float, float]:
    """How often the interval of a mean share of right answers holds the true share, and one of two equal ones zero."""
    random = np.random.default_rng([seeds, examples, int(10 * logit)])
    truth = expit(logit + random.normal(0, 1.2, 100_000)).mean()
    means = differences = 0
    for _ in range(runs):
        hard = random.normal(0, 1.2, examples)
        a, b = (np.asarray(random.random((seeds, examples)) < expit(logit + hard), dtype=float) for _ in range(2))
        mean, difference = mean_interval(a, span=1.0), paired_difference(a, b, span=1.0)
        assert mean.low is not None and mean.high is not None
        assert difference.low is not None and difference.high is not None
        means += mean.low <= truth <= mean.high
        differences += difference.low <= 0 <= difference.high
    return means / runs, differences / runs


def test_shares_close_to_one_are_covered() -> None:
    """Where nearly every answer is right, the variance of a few answers is often zero: a t interval covered 23 %."""
    found = {one: covered(*one, runs=300) for one in product((3.2, 5.3), (1, 2, 3), (20, 100))}
    means, differences = zip(*found.values(), strict=True)
    assert min(means) >= 0.88 and np.mean(means) >= 0.95, found
    assert min(differences) >= 0.93, found
