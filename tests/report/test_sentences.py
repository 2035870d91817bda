"""No sentence of the answer in brief is false: random tables, and every sentence is checked against their numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.trials_table import trials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.figures.findings import answer, caution
from harness.judgement import paired_difference
from harness.judgement.statistics import aggregate

pytestmark = pytest.mark.slow

UNTRAINED = ("baseline", "quantized")
NAMES = (*UNTRAINED, "full", "lora", "prompt", "head")
SCORES = st.sampled_from([-0.4, -0.02, 0.0, 0.5, 0.505, 0.9])
COSTS = st.sampled_from([None, 0.0, 1.0, 10.0, 1000.0])


@st.composite
def tables(draw: st.DrawFn, names: tuple[str, ...] | None = None) -> dict[str, pd.DataFrame]:
    """One task and model: any methods, with their scores as one number per seed and example, or as errors alone."""
    names = names or tuple(draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True)))
    metric = draw(st.sampled_from(["accuracy", "perplexity", "bleu", "of_ones_own"]))
    higher, stored = metric != "perplexity", draw(st.sampled_from(["all", "all", "none", "some"]))
    majority = draw(SCORES) if metric == "accuracy" else None
    base = draw(st.none() | SCORES)
    random = np.random.default_rng(draw(st.integers(0, 99)))
    hard = random.normal(0, 0.3, examples := draw(st.sampled_from([2, 8, 40])))
    seeds = draw(st.integers(1, 3))
    rows, values = [], []
    for name in names:
        level, noise = draw(SCORES), draw(st.sampled_from([0.0, 0.02, 0.3]))
        costs = {cost: draw(COSTS) for cost in ("trainable_params", "peak_train_bytes", "chain_train_s")}
        for seed in range(1 if name in UNTRAINED else draw(st.integers(1, seeds))):
            scores = level + hard + random.normal(0, noise, examples) + random.normal(0, noise / 10)
            trial_id = f"{name}{seed}"
            rows.append(
                {
                    "trial_id": trial_id,
                    "method": name,
                    "notebook": "methods/x",
                    "seed": seed,
                    "learning_rate": None if name in UNTRAINED else 0.1,
                    "primary_metric": metric,
                    "higher_is_better": higher,
                    "valid_score": 0.0,
                    "test_score": scores.mean(),
                    "test_stderr": scores.std(ddof=1) / np.sqrt(examples),
                    "test_examples": examples,
                    "base_score": base,
                    "majority_score": majority,
                    "objective": "reward" if name == "head" else "sft",
                    **costs,
                }
            )
            if stored == "all" or (stored == "some" and name != "lora"):
                values += [(trial_id, "test", f"e{n}", metric, value) for n, value in enumerate(scores)]
    return {
        "trials": trials(*rows),
        "example_scores": pd.DataFrame(values, columns=["trial_id", "split", "example", "metric", "value"]),
    }


class Facts:
    """What the sentences of one comparison are about, from the tables alone."""

    def __init__(self, drawn: dict[str, pd.DataFrame], rows: pd.DataFrame) -> None:
        self.rows = rows.set_index("method")
        self.sign = 1.0 if rows.higher_is_better.iloc[0] else -1.0
        self._trials, self._values = drawn["trials"], drawn["example_scores"]
        self.trained = [name for name in self.rows.index if name not in UNTRAINED]

    def names(self, text: str, among: list[str]) -> list[str] | None:
        """The methods that are named, or None where they are counted: then the count is right."""
        if counted := re.fullmatch(r"(?:(?:all|any of the) (\d+)(?: others)?|(\d+) of (\d+))", text):
            assert int(counted[1] or counted[3]) == len(among)
            return None
        found = re.split(r", | and ", text)
        assert set(found) <= set(among), (found, among)
        return found

    def goodness(self, name: str) -> float:
        return float(self.sign * self.rows.test_score[name])

    def table(self, name: str) -> np.ndarray | None:
        of_trials = self._trials[self._trials.method == name].sort_values("seed").trial_id
        pivot = self._values.pivot_table(index="trial_id", columns="example", values="value").reindex(of_trials)
        return None if pivot.isna().any(axis=None) or pivot.empty else pivot.to_numpy()

    def is_surely_better(self, a: str, b: str) -> bool:
        """Whether the numbers allow 'better': seeds enough, and an interval above zero, if one can be made."""
        for name in (a, b):
            if name not in UNTRAINED and self.rows.seeds[name] < 2:
                return False
        first, second = self.table(a), self.table(b)
        if first is None or second is None or self.goodness(a) <= self.goodness(b):
            return self.goodness(a) > self.goodness(b)
        seeds = max(len(first), len(second)) if {a, b} & set(UNTRAINED) else min(len(first), len(second))
        first, second = (np.repeat(t, seeds, axis=0) if len(t) < seeds else t[:seeds] for t in (first, second))
        found = paired_difference(self.sign * first, self.sign * second)
        return found.low is not None and found.low > 0


def number(text: str) -> float:
    return float(text.split(" ")[0])


def check_standing(f: Facts, said: re.Match[str]) -> None:
    top = said["top"]
    others = [name for name in f.rows.index if name != top]
    assert all(f.goodness(top) >= f.goodness(name) for name in others)
    assert number(said["score"]) == pytest.approx(f.rows.test_score[top], abs=6e-4)
    ties = sum(1 for name in others if f.rows.test_score[name] == f.rows.test_score[top])
    if "tied" in said.re.groupindex:
        assert (said["tied"] is not None, int(said["ties"] or 1)) == (ties > 0, max(ties, 1))
    if said["best"]:
        assert all(f.is_surely_better(top, name) for name in others)
        assert (said["others"], len(others)) in (
            ("the other", 1),
            ("both others", 2),
            (f"all {len(others)} others", len(others)),
        )
    if said["better"]:
        assert all(f.is_surely_better(top, name) for name in f.names(said["better"], others) or [])
    if said["equal"]:
        for name in f.names(said["equal"], others) or []:
            assert abs(f.rows.test_score[top] - f.rows.test_score[name]) <= float(said["margin"])
    if said["worse"]:
        for name in f.names(said["worse"], others) or []:
            assert f.rows.seeds[name] != f.rows.seeds[top], "on the seeds of both it is the other way round"
    if said["open"]:
        f.names(said["open"], others)
    if said["one"]:
        assert (f.rows.seeds[[n for n in f.rows.index if n in f.trained]] < 2).any()


def check_alone(f: Facts, said: re.Match[str]) -> None:
    assert list(f.rows.index) == [said["top"]]
    assert number(said["score"]) == pytest.approx(f.rows.test_score[said["top"]], abs=6e-4)


def _costs(f: Facts, of: str) -> pd.Series:
    column = {"trainable parameters": "trainable_params", "peak memory": "peak_train_bytes"}.get(of, "chain_train_s")
    costs = f.rows[column][f.trained]
    return costs[costs > 0]


def check_cheaper(f: Facts, said: re.Match[str]) -> None:
    costs = _costs(f, said["of"])
    cheap, dear = said["cheap"], said["dear"]
    assert costs[cheap] < costs[dear]
    assert number(said["score"]) == pytest.approx(f.rows.test_score[cheap], abs=6e-4)
    assert number(said["other"]) == pytest.approx(f.rows.test_score[dear], abs=6e-4)
    if said["share"] != "more than 99 %":
        assert number(said["share"]) == pytest.approx(100 * costs[cheap] / costs[dear], rel=0.06)


def check_nearest(f: Facts, said: re.Match[str]) -> None:
    costs = _costs(f, said["of"])
    cheaper = [name for name in costs.index if costs[name] < costs[said["dear"]]]
    assert f.goodness(said["near"]) == max(map(f.goodness, cheaper))
    assert f.goodness(said["near"]) < f.goodness(said["dear"])
    assert said["side"] == ("highest" if f.sign > 0 else "lowest")


def check_none_cheaper(f: Facts, said: re.Match[str]) -> None:
    costs = _costs(f, said["of"])
    assert costs[said["dear"]] == costs.min()
    assert len(costs.dropna()) == len(f.trained), "of the others nothing is known"


def check_some_cheaper(f: Facts, said: re.Match[str]) -> None:
    known = _costs(f, said["of"]).dropna()
    assert (int(said["known"]), int(said["all"])) == (len(known), len(f.trained)) and len(known) < len(f.trained)
    assert known[said["dear"]] == known.min()


def check_untrained(f: Facts, said: re.Match[str]) -> None:
    assert number(said["score"]) == pytest.approx(f.rows.test_score["baseline"], abs=6e-4)
    gains = {name: f.goodness(name) - f.goodness("baseline") for name in f.trained}
    if gains:
        assert bool(said["below"]) == (max(gains.values()) < 0)
    if said["better"]:
        assert all(f.is_surely_better(name, "baseline") for name in f.names(said["better"], f.trained) or [])
    if said["worse"]:
        assert all(f.is_surely_better("baseline", name) for name in f.names(said["worse"], f.trained) or [])
    for group in ("equal", "open"):
        if said[group]:
            f.names(said[group], f.trained)


def check_base(f: Facts, said: re.Match[str]) -> None:
    assert "baseline" not in f.rows.index
    assert number(said["score"]) == pytest.approx(f.rows.base_score.min(), abs=6e-4)


def check_unscored(f: Facts, _said: re.Match[str]) -> None:
    assert "baseline" not in f.rows.index and f.rows.base_score[f.trained].isna().all()


def check_constant(f: Facts, said: re.Match[str]) -> None:
    level = f.rows.majority_score.iloc[0]
    assert number(said["score"]) == pytest.approx(level, abs=6e-4)
    above = {name for name in f.trained if f.rows.ci_low[name] > level}
    named = None if said["who"] == "no trained method" else f.names(said["who"], f.trained)
    assert set(named or above) == above
    assert (said["who"] == "no trained method") == (not above)


def check_seen(f: Facts, said: re.Match[str]) -> None:
    if said["undecided"]:
        every = len(f.rows) * (len(f.rows) - 1) // 2
        assert int(said["undecided"]) <= int(said["pairs"]) and int(said["pairs"]) + int(said["left"] or 0) == every
    else:
        assert len(f.rows) == 2, "a pair that is the only one"
    for name in (said["first"], said["second"]):
        assert name in f.rows.index
    assert not f.rows.seeds[[n for n in (said["first"], said["second"]) if n in f.trained]].lt(2).any()
    apart = abs(f.rows.test_score[said["first"]] - f.rows.test_score[said["second"]])
    assert number(said["apart"]) == pytest.approx(apart, abs=0.3), "of the seeds that both have"
    assert said["smallest"] is None or float(said["smallest"]) >= 0
    if f.rows.primary_metric.iloc[0] == "accuracy":
        assert said["smallest"] is None or float(said["smallest"]) <= 1


def check_unpaired(f: Facts, said: re.Match[str]) -> None:
    without = [name for name in f.rows.index if f.table(name) is None]
    assert set(f.names(said["who"], list(f.rows.index)) or without) == set(without)


_S = r"-?\d+\.\d{3}(?: \[-?\d+\.\d{3}, -?\d+\.\d{3}\])?"
_N = r"[\w, ]+?"
_MAY = r"(?P<better>$^)?(?P<equal>$^)?(?P<margin>$^)?(?P<worse>$^)?(?P<open>$^)?(?P<one>$^)?"
_CHECKS: list[tuple[Callable[[Facts, re.Match[str]], None], str]] = [
    (
        check_standing,
        rf"(?:reward model )?(?P<top>\w+) (?:(?P<best>scores best: )(?P<score>{_S}), "
        rf"better than (?P<others>[\w ]+){_MAY})",
    ),
    (
        check_standing,
        rf"(?:reward model )?(?P<top>\w+) has the (?:highest|lowest) score, (?P<score>{_S})(?P<best>$^)?(?P<others>$^)?"
        r"(?P<tied>, which (?:another has|(?P<ties>\d+) others have) too)?"
        rf"(?:,(?: and)? better than (?P<better>{_N}))??"
        rf"(?:,(?: and)?(?: is)? equivalent to (?P<equal>{_N}) \(apart by less than (?P<margin>[\d.]+)\))?"
        rf"(?:,(?: and)?(?: is)? worse than (?P<worse>{_N}) on the seeds that both have)?"
        rf"(?:, but is not shown to be better than (?P<open>{_N})(?P<one> \(one seed\))?)?",
    ),
    (check_alone, rf"(?:reward model )?(?P<top>\w+) scores (?P<score>{_S})"),
    (
        check_cheaper,
        rf"(?P<cheap>\w+) scores (?P<score>{_S}) with (?P<share>more than 99 %|[\d.]+ %) of (?P<dear>\w+)’s "
        rf"(?P<of>[\w ]+); (?P=dear) scores (?P<other>{_S})",
    ),
    (
        check_nearest,
        rf"(?P<dear>\w+) scores {_S}; of those with (?:less|fewer) (?P<of>[\w ]+), (?P<near>\w+) scores "
        rf"(?P<side>\w+): {_S}",
    ),
    (check_none_cheaper, rf"(?P<dear>\w+) scores {_S}, and no method needs (?:less|fewer) (?P<of>[\w ]+)"),
    (
        check_some_cheaper,
        rf"(?P<dear>\w+) scores {_S}, and of the (?P<known>\d+) of (?P<all>\d+) methods whose (?P<of>[\w ]+) can be "
        r"compared none needs (?:less|fewer) (?P=of)",
    ),
    (
        check_untrained,
        rf"the untrained model scores (?P<score>{_S})(?P<below>; every trained method scores (?:below|above) it)?"
        rf"(?:; better than it: (?P<better>{_N}))?(?:; worse than it: (?P<worse>{_N}))?"
        rf"(?:; equivalent to it: (?P<equal>{_N}))?(?:; not told apart from it: (?P<open>{_N}))?",
    ),
    (check_base, rf"the untrained model scores (?P<score>{_S})(?: to {_S})?"),
    (check_unscored, "the untrained model was not scored, so no gain is known"),
    (
        check_constant,
        rf"a model that reads nothing scores (?P<score>{_S}); the interval of (?P<who>{_N}) lies (?:above|below) that",
    ),
    (
        check_seen,
        r"(?:(?P<undecided>\d+) of (?P<pairs>\d+) pairs (?:is|are) undecided(?:, and of (?P<left>\d+) more nothing can "
        r"be told \(one seed, or no error is known\))?|the pair is undecided); "
        r"(?:no possible difference would have been seen|a difference of (?P<smallest>[\d.]+) would have been seen|"
        r"at least half of these would have shown a difference of (?P<half>[\d.]+)|"
        r"(?P<few>\d+) of these would have shown a possible one, from [\d.]+ on,) "
        r"with a probability of 80 %, and to show which of the pair that is nearest to a decision is better "
        r"\((?P<first>\w+) and (?P<second>\w+), (?P<apart>[\d.]+) apart\) (?:would take .*|is out of reach: .*)",
    ),
    (
        check_unpaired,
        rf"scores of single examples are missing of (?P<who>{_N}): compared by standard errors, not in pairs",
    ),
]


def check(sentence: str, facts: Facts) -> None:
    """Raise AssertionError if the sentence is of no known kind, or says what the numbers do not."""
    for checked, pattern in _CHECKS:
        if checked is (check_base if "baseline" in facts.rows.index else check_untrained):
            continue
        if found := re.fullmatch(pattern, sentence):
            checked(facts, found)
            return
    pytest.fail(f"a sentence that no check knows: {sentence}")


def check_all(drawn: dict[str, pd.DataFrame]) -> None:
    rows = aggregate(drawn)
    said = answer(rows, drawn)
    single = rows[~rows.method.isin(UNTRAINED) & (rows.seeds < 2)]
    assert (caution(rows) is not None) == (len(single) > 0)
    assert bool(said) == (~rows.method.isin(UNTRAINED)).any()
    groups = dict(list(rows.groupby(rows.objective == "reward")))
    for sentences in said.values():
        scalar: Any = None
        for sentence in sentences:
            opens = re.match(r"(reward model )?\w+ (scores best|has the|scores -?[\d.]+( \[[^]]+\])?$)", sentence)
            if opens:
                scalar = opens[1] is not None
            check(sentence, Facts(drawn, groups[scalar]))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables())
def test_no_sentence_is_false(drawn: dict[str, pd.DataFrame]) -> None:
    check_all(drawn)


@pytest.mark.slow
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables(names=("baseline", "full", *(f"m{n}" for n in range(58)))))
@pytest.mark.long
def test_no_sentence_is_false_of_sixty_methods(drawn: dict[str, pd.DataFrame]) -> None:
    check_all(drawn)
