"""What a sweep could have seen, and what would decide what it could not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from harness.judgement.intervals import CONFIDENCE, SPREAD_SEEDS, Error, Part, students_t
from harness.judgement.verdicts import Comparison, Pair

POWER = 0.8
_MOST_SEEDS = 100
_MOST_EXAMPLES = 1_000_000


@dataclass(frozen=True)
class Power:
    """What one comparison could see. Differences are in the unit of the score."""

    undecided: int
    """Pairs of which it cannot tell, those with one seed left out."""
    pairs: int
    smallest: float
    """A difference that at least half of the undecided pairs would have shown with a probability of 80 %."""
    least: float
    """The same for the undecided pair that shows the smallest."""
    possible: int
    """Undecided pairs that would have shown some difference that the metric's range allows."""
    closest: tuple[int, int]
    """The undecided pair that is nearest to a decision, by the numbers of its rows."""
    seeds: int | None
    """Seeds that would decide the closest pair with a probability of 80 % if its difference is what was measured; None:
    more than 100, or no number of seeds alone."""
    examples: int | None
    """Test examples that would, with the seeds that there are; None: more than a million, or no number."""


def power(comparison: Comparison) -> Power | None:
    """None where every pair is decided, or nothing is known of the errors of those that are not."""
    judged = {key: pair for key, pair in comparison.pairs.items() if pair.p is not None}
    open_ = {key: pair for key, pair in judged.items() if key in comparison.undecided and pair.difference.error.parts}
    if not open_:
        return None
    # Holm compares the smallest p that is left with the level over the number that is left.
    decided = sum(1 for pair in judged.values() if pair.p is not None and pair.p <= 1 - CONFIDENCE)
    level = (1 - CONFIDENCE) / max(len(judged) - decided, 1)
    smallest = sorted(visible(pair.difference.error, pair.pooled, level) for pair in open_.values())
    possible = sum(1 for one in smallest if comparison.span is None or one <= comparison.span)
    closest = min(open_, key=lambda key: (open_[key].difference.p or 0.0, key))
    seeds, examples = _needed(open_[closest], level)
    middle = smallest[(len(smallest) - 1) // 2]
    return Power(len(open_), len(judged), middle, smallest[0], possible, closest, seeds, examples)


def visible(error: Error, pooled: Error, level: float) -> float:
    """The difference that is seen with a probability of 80 %: the half-width and the quantile of that power."""
    assert error.stderr is not None  # noqa: S101  (power() saw to it)
    least = min(part.df for part in pooled.parts)
    half = max(error.half_width() or 0.0, pooled.half_width(level) or 0.0)
    return half + students_t(2 * (1 - POWER), least) * error.stderr


def _needed(pair: Pair, level: float) -> tuple[int | None, int | None]:
    d = pair.difference
    wanted = abs(d.estimate or 0.0)

    def decides(seeds: int, examples: int) -> bool:
        own, pooled = (_scaled(one, d.seeds, d.examples, seeds, examples) for one in (d.error, pair.pooled))
        return wanted > 0 and visible(own, pooled, level) <= wanted

    more_seeds = _first(lambda n: decides(n, d.examples), max(d.seeds, SPREAD_SEEDS), _MOST_SEEDS)
    more_examples = _first(lambda n: decides(d.seeds, n), max(d.examples, 2), _MOST_EXAMPLES)
    return more_seeds, more_examples


def _scaled(error: Error, seeds: int, examples: int, new_seeds: int, new_examples: int) -> Error:
    """The error with other numbers of seeds and examples, the variance of single scores being what it is."""
    fewer, shorter = seeds / new_seeds, examples / new_examples if examples else 1.0

    def part(old: Part | None, variance: float, df: float) -> Part | None:
        return None if old is None else Part(variance, max(df, 1))

    of_seeds, of_examples, alone = error.of_seeds, error.of_examples, error.examples_alone
    own = of_seeds.variance - error.rest if of_seeds else 0.0
    gained = of_seeds.df - (seeds - 1) if of_seeds else 0.0
    return Error(
        part(of_seeds, fewer * (max(own, 0.0) + error.rest * shorter), new_seeds - 1 + gained),
        part(of_examples, shorter * of_examples.variance if of_examples else 0.0, new_examples - 1),
        part(alone, shorter * alone.variance if alone else 0.0, new_examples - 1),
        error.rest * fewer * shorter,
        None if error.unseen is None else replace(error.unseen, examples=max(new_examples, 1)),
    )


def _first(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest number from ``low`` to ``high`` for which ``holds``, which stays true once it is; None if none."""
    if not holds(high):
        return None
    while low < high:
        middle = math.floor((low + high) / 2)
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
