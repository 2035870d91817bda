"""Strengths from pairwise comparisons of answers, with ties: Bradley & Terry 1952, Davidson 1970.

Two rows answer the same example on the same seed, and the judge (a metric of single answers) prefers one or neither.
Davidson's model says that row i wins over j in proportion to exp(a_i), loses to exp(a_j), and ties to
nu * exp((a_i + a_j) / 2). Answers to one example are no independent comparisons, so the intervals come from the sum of
the scores of each example (Liang & Zeger 1986), and, with two seeds or more, of each seed as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize

from harness.judgement.examples import clusters, scores_by_trial, stacked
from harness.judgement.intervals import SPREAD_SEEDS, Error, Floats, Part
from harness.judgement.surprise import perplexity
from harness.judgement.verdicts import Comparison
from harness.results.files import Tables, where

ELO = 400 / np.log(10)
"""A strength in logarithms of odds times this is a difference of Elo ratings."""

#: Weak pull to equal strengths (variance of a normal prior): a row that wins always has a finite strength.
_PRIOR = 25.0


@dataclass(frozen=True)
class Rating:
    """One row's strength, relative to the mean of all rows."""

    strength: float
    """Logarithm of odds against a row of mean strength, ties aside."""
    low: float
    high: float
    wins: float
    ties: float
    losses: float

    @property
    def elo(self) -> float:
        """The strength on Elo's scale; the mean of all rows is 0."""
        return float(ELO * self.strength)


@dataclass(frozen=True)
class Guards:
    """What a judge may like or dislike beside the answer's quality."""

    words: float
    """Mean length of an answer."""
    repetition: float | None
    """Share of an answer's word triples that stand in it already; None where no answer has two of them."""
    perplexity: float | None = None
    """Of the answers under the untouched model; None where that was not measured."""


def ratings(comparison: Comparison) -> list[Rating] | None:
    """A rating for each row by the metric of the comparison; None where fewer than two rows share scored examples."""
    tables = [side.table for side in comparison.sides]
    if len(tables) < 2 or any(table is None for table in tables):
        return None
    sign = 1.0 if comparison.higher_is_better else -1.0
    return rated(sign * np.stack([table for table in tables if table is not None], axis=-1), comparison.sources)


def rated_by(metric: str, comparison: Comparison, tables: Tables) -> dict[int, Rating] | None:
    """A rating by another metric of single answers, such as the reward of a trained reward model, by the row's number.

    Only rows that stored it for every seed are rated; None where fewer than two did.
    """
    trials = tables["trials"].assign(primary_metric=metric)
    ids = [one for row in comparison.rows.trial_ids for one in row]
    by_trial = scores_by_trial(trials[trials.trial_id.isin(ids)], tables)
    found = {
        place: scores
        for place, row in enumerate(comparison.rows.trial_ids)
        if (scores := stacked(trials[trials.trial_id.isin(row)], by_trial)) is not None
    }
    if len(found) < 2:
        return None
    seeds = tuple(sorted({seed for scores in found.values() for seed in scores.seeds}))
    examples = list(dict.fromkeys(example for scores in found.values() for example in scores.examples))
    stacks = np.stack([scores.at(seeds, examples) for scores in found.values()], axis=-1)
    strengths = rated(stacks, clusters(examples))
    return None if strengths is None else dict(zip(found, strengths, strict=True))


def rated(scores: Floats, sources: Sequence[str] | None = None) -> list[Rating] | None:
    """A rating for each row from what the judge thinks of its answers, of shape (seeds, examples, rows); NaN: none.

    ``sources`` names the source of each example. None where two rows are not connected by comparisons.
    """
    return _rated(_games(scores, sources), scores.shape[-1])


def rated_games(games: Sequence[tuple[int, int, float, int, str]]) -> dict[int, Rating] | None:
    """A rating by the row's number, from comparisons one by one.

    Each is the first row, the second row, the result (1, 0.5 or 0 for the first), the seed and the source of the
    example. None where there are none, or where they leave two rows unconnected.
    """
    if not games:
        return None
    frame = pd.DataFrame(games, columns=["first", "second", "result", "seed", "source"])
    rows, places = np.unique(np.concatenate([frame["first"], frame["second"]]), return_inverse=True)
    first, second = np.split(places, 2)
    result = frame.result.to_numpy(np.float64)
    met = _Games(first, second, result, frame.seed.to_numpy(np.intp), pd.factorize(frame.source)[0])
    ratings = _rated(met, len(rows))
    return None if ratings is None else dict(zip(rows.tolist(), ratings, strict=True))


def _rated(games: _Games, count: int) -> list[Rating] | None:
    if not _is_connected(games, count):
        return None
    strengths, log_nu = _fit(games, count)
    errors = _errors(games, strengths, log_nu)
    wins, ties, losses = _tallies(games, count)
    found = []
    for place, (strength, error) in enumerate(zip(strengths, errors, strict=True)):
        half = error.half_width() or 0.0
        tally = (float(wins[place]), float(ties[place]), float(losses[place]))
        found.append(Rating(float(strength), float(strength - half), float(strength + half), *tally))
    return found


@dataclass(frozen=True)
class _Games:
    """Comparisons one by one: who met whom, how it ended (1, 0.5, 0 for the first), on which seed and source."""

    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    result: Floats
    seed: npt.NDArray[np.intp]
    source: npt.NDArray[np.intp]


def _games(scores: Floats, sources: Sequence[str] | None) -> _Games:
    _, examples, count = scores.shape
    names = np.arange(examples) if sources is None else pd.factorize(np.array(sources))[0]
    parts = []
    for i, j in combinations(range(count), 2):
        a, b = scores[..., i], scores[..., j]
        seed, example = np.nonzero(np.isfinite(a) & np.isfinite(b))
        result = 0.5 + 0.5 * np.sign(a[seed, example] - b[seed, example])
        parts.append((np.full(len(seed), i), np.full(len(seed), j), result, seed, names[example]))
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return _Games(*joined)


def _is_connected(games: _Games, count: int) -> bool:
    group = {0}
    while True:
        pairs = zip(games.first.tolist(), games.second.tolist(), strict=True)
        near = {one for pair in set(pairs) if group & set(pair) for one in pair}
        if near <= group:
            return len(group) == count
        group |= near


def _probabilities(d: Floats, log_nu: float) -> tuple[Floats, Floats]:
    """The probability that the first wins, whose strength is larger by ``d``, and that neither does."""
    logs = np.stack([d / 2, np.full_like(d, log_nu), -d / 2])
    shares = np.exp(logs - logs.max(axis=0))
    shares /= shares.sum(axis=0)
    return shares[0], shares[1]


def _fit(games: _Games, count: int) -> tuple[Floats, float]:
    """Strengths of mean 0 and the logarithm of nu, by maximum likelihood with a weak prior."""
    has_ties = bool((games.result == 0.5).any())
    # The likelihood asks only how often each pair ended in which way.
    pairs, places = np.unique(games.first * count + games.second, return_inverse=True)
    wins, ties, losses = (np.bincount(places, games.result == end, len(pairs)) for end in (1.0, 0.5, 0.0))
    first, second = np.divmod(pairs, count)

    def loss(x: Floats) -> tuple[float, Floats]:
        strengths, log_nu = x[:count], x[count] if has_ties else -50.0
        win, tie = _probabilities(strengths[first] - strengths[second], log_nu)
        slope = wins + ties / 2 - (wins + ties + losses) * (win + tie / 2)
        gradient = np.bincount(first, slope, count) - np.bincount(second, slope, count)
        of_nu = float((ties - (wins + ties + losses) * tie).sum()) if has_ties else 0.0
        logs = [np.log(np.maximum(share, 1e-300)) for share in (win, tie, 1 - win - tie)]
        value = -(wins * logs[0] + ties * logs[1] + losses * logs[2]).sum()
        value += (strengths**2).sum() / (2 * _PRIOR) + x[count] ** 2 / 1e3
        return float(value), np.append(strengths / _PRIOR - gradient, 2 * x[count] / 1e3 - of_nu)

    x = minimize(loss, np.zeros(count + 1), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return x[:count] - x[:count].mean(), float(x[count]) if has_ties else -50.0


def _errors(games: _Games, strengths: Floats, log_nu: float) -> list[Error]:
    """The error of each strength: its part of the seeds, and that of the examples with the seeds as they are."""
    count = len(strengths)
    win, tie = _probabilities(strengths[games.first] - strengths[games.second], log_nu)
    expected = win + tie / 2
    slope = games.result - expected
    weight = win + tie / 4 - expected**2
    hessian = np.eye(count) / _PRIOR
    for sign, i, j in ((1, games.first, games.first), (1, games.second, games.second), (-1, games.first, games.second)):
        np.add.at(hessian, (i, j), sign * weight)
    hessian -= np.tril(hessian, -1) - np.triu(hessian, 1).T
    spread = np.linalg.inv(hessian)
    spread -= spread.mean(axis=0)  # relative to the mean strength

    def variance(groups: npt.NDArray[np.intp]) -> tuple[Floats, int]:
        _, places = np.unique(groups, return_inverse=True)
        sums = np.zeros((int(places.max()) + 1, count))
        np.add.at(sums, (places, games.first), slope)
        np.add.at(sums, (places, games.second), -slope)
        many = len(sums)
        return ((sums @ spread.T) ** 2).sum(axis=0) * many / max(many - 1, 1), many

    of_examples, examples = variance(games.source)
    alone = [Part(float(one), max(examples - 1, 1)) for one in of_examples]
    of_seeds, seeds = variance(games.seed)
    if seeds < SPREAD_SEEDS:
        return [Error(of_examples=one) for one in alone]
    return [Error(Part(float(one), seeds - 1), part, part) for one, part in zip(of_seeds, alone, strict=True)]


def _tallies(games: _Games, count: int) -> tuple[Floats, Floats, Floats]:
    def tally(of_first: float) -> Floats:
        ours = np.bincount(games.first[games.result == of_first], minlength=count)
        theirs = np.bincount(games.second[games.result == 1 - of_first], minlength=count)
        found: Floats = (ours + theirs).astype(np.float64)
        return found

    return tally(1.0), tally(0.5), tally(0.0)


def guards(trial_ids: Sequence[str], tables: Tables) -> Guards | None:
    """Length, repetition and perplexity of the stored answers of some trials; None where none are stored."""
    if "generations" not in tables:
        return None
    answers = [str(text).split() for text in where(tables, "generations", trial_ids).output.dropna()]
    if not answers:
        return None
    repeated = [_repeated(words) for words in answers if len(words) > 3]
    return Guards(
        float(np.mean([len(words) for words in answers])),
        float(np.mean(repeated)) if repeated else None,
        perplexity(trial_ids, tables),
    )


def _repeated(words: Sequence[str]) -> float:
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(triples)) / len(triples)
