"""Verdicts with known answers: paired on examples and seeds, corrected, never on one seed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers.lengths import long_after
from helpers.trials_table import trials
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.judgement.intervals import Error, Floats, Interval, Part
from harness.judgement.pooling import moderated
from harness.judgement.power import _scaled, power, visible
from harness.judgement.statistics import aggregate
from harness.judgement.verdicts import Comparison, Pair, Side, Verdict, _pairs, _spreads, beats_baseline, compare

FIXED = {"learning_rate": None}


def sweep(scores: dict[str, Floats], metric: str = "accuracy", **columns: object) -> dict[str, pd.DataFrame]:
    """The tables of methods with these scores, each of shape (seeds, examples)."""
    rows, values = [], []
    for method, table in scores.items():
        for seed, of_seed in enumerate(table):
            rows.append(
                {
                    "trial_id": f"{method}{seed}",
                    "method": method,
                    "seed": seed,
                    "primary_metric": metric,
                    "valid_score": 0.5,
                    "test_score": of_seed.mean(),
                    "test_stderr": of_seed.std(ddof=1) / np.sqrt(len(of_seed)),
                    "test_examples": len(of_seed),
                    **(FIXED if method == "baseline" else {}),
                    **columns,
                }
            )
            values += [(f"{method}{seed}", "test", f"e{n}", metric, value) for n, value in enumerate(of_seed)]
    frame = pd.DataFrame(values, columns=["trial_id", "split", "example", "metric", "value"])
    return {"trials": trials(*rows), "example_scores": frame}


def judged(tables: dict[str, pd.DataFrame]) -> Comparison:
    (comparison,) = compare(aggregate(tables), tables)
    return comparison


def noisy(level: float, seeds: int = 3, examples: int = 200, seed: int = 0) -> Floats:
    """Scores around ``level``: the same hard examples whatever the level, and noise of their own."""
    hard = np.random.default_rng(99).normal(0, 0.4, examples)
    return level + hard + np.random.default_rng(seed).normal(0, 0.05, (seeds, examples))


def test_the_same_examples_are_compared_one_by_one() -> None:
    """The examples differ by 0.4, so the intervals overlap; the difference of 0.05 is sure, for both share them."""
    comparison = judged(sweep({"lora": noisy(0.45, seed=1), "full": noisy(0.5, seed=2)}))
    assert comparison.rows.method.tolist() == ["full", "lora"]
    assert comparison.rows.ci_low[0] < comparison.rows.ci_high[1]
    pair = comparison.pair(0, 1)
    assert (pair.verdict, comparison.pair(1, 0).verdict) == (Verdict.BETTER, Verdict.WORSE)
    assert pair.difference.estimate == pytest.approx(0.05, abs=0.01)
    assert pair.difference.basis == "3 seeds and 200 examples"
    assert comparison.letters() == ["a", "b"]


def test_without_scores_of_examples_the_doubt_is_larger() -> None:
    tables = sweep({"lora": noisy(0.45, seed=1), "full": noisy(0.5, seed=2)})
    pair = judged({**tables, "example_scores": tables["example_scores"].iloc[:600]}).pair(0, 1)
    assert (pair.verdict, pair.paired) == (Verdict.CANNOT_TELL, False)
    assert judged({"trials": tables["trials"]}).pair(0, 1).verdict is Verdict.CANNOT_TELL


def test_lower_is_better_turns_the_verdict_round() -> None:
    scores = {"lora": noisy(4.5, seed=1), "full": noisy(5.0, seed=2)}
    comparison = judged(sweep(scores, metric="perplexity", higher_is_better=False))
    assert comparison.rows.method.tolist() == ["lora", "full"]
    assert comparison.pair(0, 1).verdict is Verdict.BETTER
    assert comparison.pair(0, 1).difference.estimate == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("metric", "apart", "verdict"), [
    ("accuracy", 0.004, Verdict.EQUIVALENT),
    ("bleu", 0.4, Verdict.EQUIVALENT),
    ("accuracy", 0.4, Verdict.BETTER),
    ("perplexity", 0.0, Verdict.CANNOT_TELL),
])  # fmt: skip
def test_a_difference_within_the_margin_is_equivalent_in_the_unit_of_the_metric(
    metric: str, apart: float, verdict: Verdict
) -> None:
    scores = {"full": noisy(0.5, examples=2000, seed=1), "lora": noisy(0.5 - apart, examples=2000, seed=2)}
    comparison = judged(sweep(scores, metric=metric))
    assert comparison.pair(0, 1).verdict is verdict
    assert comparison.letters()[0] == comparison.letters()[1] or verdict is Verdict.BETTER


def test_one_seed_calls_nothing_better_nor_equivalent() -> None:
    for apart in (0.4, 0.0):
        pair = judged(sweep({"full": noisy(0.5, 1), "lora": noisy(0.5 - apart, 1, seed=1)})).pair(0, 1)
        assert (pair.verdict, pair.one_seed) == (Verdict.CANNOT_TELL, True)


def test_only_the_seeds_that_both_have_count() -> None:
    tables = sweep({"full": noisy(0.5), "lora": noisy(0.1, seed=1)})
    tables["trials"].loc[tables["trials"].trial_id.isin(["full0", "lora2"]), "status"] = "oom"
    pair = judged(tables).pair(0, 1)
    assert (pair.difference.seeds, pair.verdict) == (1, Verdict.CANNOT_TELL)


def test_the_untrained_model_has_every_seed() -> None:
    tables = sweep({"full": noisy(0.5), "baseline": noisy(0.3, seeds=1, seed=1)})
    found = beats_baseline(tables).iloc[0]
    assert (found.method, found.verdict, found.basis) == ("full", "better", "3 seeds and 200 examples")
    assert found.difference == pytest.approx(0.2, abs=0.01)
    below = sweep({"full": noisy(0.1), "baseline": noisy(0.3, seeds=1, seed=1)})
    assert beats_baseline(below).verdict.tolist() == ["worse"]
    assert beats_baseline(sweep({"full": noisy(0.5)})).empty


def test_answers_that_are_all_the_same_are_equivalent_once_there_are_enough() -> None:
    """A difference that 1 % of all examples have is in none of 300 with a probability of 5 %."""
    few, many = (np.ones((3, n)) for n in (298, 299))
    assert judged(sweep({"a": few, "b": few})).pair(0, 1).verdict is Verdict.CANNOT_TELL
    assert judged(sweep({"a": many, "b": many})).pair(0, 1).verdict is Verdict.EQUIVALENT
    assert judged(sweep({"a": np.ones((3, 30)), "b": np.zeros((3, 30))})).pair(0, 1).verdict is Verdict.BETTER
    assert judged(sweep({"a": np.ones((3, 4)), "b": np.zeros((3, 4)) + 0.6})).pair(0, 1).verdict is Verdict.CANNOT_TELL


def test_a_reward_models_accuracy_is_not_that_of_a_policy() -> None:
    tables = sweep({"full": noisy(0.5), "lora": noisy(0.3, seed=1)})
    tables["trials"].loc[tables["trials"].method == "full", "objective"] = "reward"
    assert [len(one.rows) for one in compare(aggregate(tables), tables)] == [1, 1]


def false_verdicts(runs: int, seeds: int, methods: int, of_seeds: float) -> float:
    """In how many comparisons of equal methods any pair is called different."""
    random = np.random.default_rng([seeds, methods])
    wrong = 0
    for _ in range(runs):
        hard = random.normal(0, 0.3, 200)
        of_method = [hard + random.normal(0, 0.1, 200) for _ in range(methods)]
        sides = [
            Side(None, one + random.normal(0, of_seeds, (seeds, 1)) + random.normal(0, 0.3, (seeds, 200)), False)
            for one in of_method
        ]
        pairs = _pairs(sides, None, 1.0, 1.0, None).values()
        wrong += any(pair.verdict in (Verdict.BETTER, Verdict.WORSE) for pair in pairs)
    return wrong / runs


def test_equal_methods_are_rarely_called_different() -> None:
    assert false_verdicts(100, seeds=3, methods=4, of_seeds=0.03) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("of_seeds", long_after(2, [0.0, 0.03, 0.1]))
def test_at_most_one_comparison_in_twenty_holds_a_false_verdict(seeds: int, of_seeds: float) -> None:
    # 5 % of 300 comparisons is at most 7.5 % in 97 of 100 repetitions.
    assert false_verdicts(300, seeds, methods=5, of_seeds=of_seeds) <= 0.075


def test_spreads_that_scatter_by_chance_are_pooled_and_others_keep_their_own() -> None:
    alike = [Part(one, 2) for one in (1.0, 2.0, 3.0)]
    assert moderated(alike) == [Part(2.0, 3)] * 3
    assert moderated(alike[:2]) == alike[:2], "two say nothing of how alike they are"
    assert moderated([Part(0.0, 2)] * 4) == [Part(0.0, 2)] * 4
    wild = moderated([*(Part(one, 20) for one in (0.9, 1.0, 1.1, 1.0)), Part(400.0, 20)])
    assert wild[-1].variance > 100 * wild[0].variance
    assert wild[-1].df < 30


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_rows_share_a_letter_if_and_only_if_neither_is_better(drawn: tuple[int, set[tuple[int, int]]]) -> None:
    n, better = drawn
    unknown = Interval(None, None, None, None, "none")
    pairs = {
        (i, j): Pair(unknown, Verdict.BETTER if (i, j) in better else Verdict.CANNOT_TELL)
        for i in range(n)
        for j in range(i + 1, n)
    }
    words = Comparison(pd.DataFrame(index=range(n)), pairs, 0.01).letters()
    assert all(words)
    for (i, j), pair in pairs.items():
        assert bool(set(words[i]) & set(words[j])) == (pair.verdict is Verdict.CANNOT_TELL)


def test_power_by_hand() -> None:
    """One pair without spread over seeds: 100 examples whose differences have a standard deviation of 1."""
    differences = np.random.default_rng(0).normal(size=100)
    differences = 0.15 + (differences - differences.mean()) / differences.std(ddof=1)
    table = np.tile(differences, (2, 1))
    comparison = judged(sweep({"a": table, "b": np.zeros((2, 100))}))
    found = power(comparison)
    assert found is not None
    assert (found.undecided, found.pairs, found.closest) == (1, 1, (0, 1))
    # t(99, 97.5 %) + t(1, 80 %) times 0.1: the degrees of freedom of the power are those of the seeds.
    assert found.smallest == pytest.approx((1.984217 + 1.376382) * 0.1, rel=1e-4)
    assert found.seeds is None, "no seed makes the examples' part smaller"
    # (1.96 + 1.376) / sqrt(n) <= 0.15
    assert found.examples == pytest.approx(((1.9648 + 1.376382) / 0.15) ** 2, abs=2)
    assert power(judged(sweep({"a": noisy(0.9), "b": noisy(0.1, seed=1)}))) is None


def test_lower_is_better_by_standard_errors_too() -> None:
    scores = {"lora": noisy(4.5, seed=1), "full": noisy(5.0, seed=2)}
    tables = sweep(scores, metric="perplexity", higher_is_better=False)
    pair = judged({"trials": tables["trials"]}).pair(0, 1)
    assert (pair.paired, pair.verdict) == (False, Verdict.BETTER)
    assert pair.difference.estimate == pytest.approx(0.5, abs=0.02)


def test_pairs_that_are_decided_ask_for_no_correction() -> None:
    differences = np.random.default_rng(0).normal(size=100)
    differences = 0.15 + (differences - differences.mean()) / differences.std(ddof=1)
    far = np.zeros((2, 100)) - 5
    found = power(judged(sweep({"a": np.tile(differences, (2, 1)), "b": np.zeros((2, 100)), "c": far})))
    assert found is not None and (found.undecided, found.pairs, found.closest) == (1, 3, (0, 1))
    assert found.smallest == pytest.approx((1.984217 + 1.376382) * 0.1, rel=1e-4)


def test_more_examples_reduce_the_noise_in_the_seeds_part() -> None:
    found = _scaled(Error(Part(0.5, 5), Part(0.1, 9), None, 0.2), 3, 10, 3, 20)
    assert found.of_seeds is not None
    assert (found.of_seeds.variance, found.of_seeds.df) == pytest.approx((0.3 + 0.2 / 2, 2 + 3))


def test_what_two_degrees_of_freedom_scatter_by_chance_is_pooled() -> None:
    found = moderated([Part(variance, 2) for variance in (1.0, 4.0, 9.0)])
    assert [one.variance for one in found] == pytest.approx([14 / 3] * 3)
    assert [one.df for one in found] == [3] * 3


def test_few_shot_prompts_are_not_the_untrained_model() -> None:
    tables = sweep({"baseline": noisy(0.4, 1), "full": noisy(0.5)})
    assert judged(tables).zero_shot is not None
    tables["trials"].loc[tables["trials"].method == "baseline", "method_args"] = '{"shots": 4}'
    assert judged(tables).zero_shot is None


def test_seeds_vary_by_their_unbiased_variance() -> None:
    comparison = judged(sweep({"lora": noisy(0.45, seed=1), "full": noisy(0.5, seed=2)}))
    found = _spreads(list(comparison.sides))
    means = [noisy(0.5, seed=2).mean(axis=1), noisy(0.45, seed=1).mean(axis=1)]
    assert [found[place].variance for place in (0, 1)] == pytest.approx([np.var(one, ddof=1) for one in means])


def test_without_scores_of_examples_seeds_and_examples_both_count() -> None:
    tables = sweep({"lora": noisy(0.45, seed=1), "full": noisy(0.5, seed=2)})
    comparison = judged({"trials": tables["trials"]})
    error, rows = comparison.pair(0, 1).difference.error, comparison.rows
    assert error.of_seeds is not None and error.of_examples is not None
    assert error.of_seeds.variance == pytest.approx((rows.seed_stderr**2).sum())
    assert error.of_examples.variance == pytest.approx((rows.test_stderr**2).sum())


def test_of_an_even_number_of_pairs_just_half_would_have_shown_the_difference() -> None:
    scales = np.array([0.5, 1.0, 2.0, 4.0])
    draws = np.random.default_rng(0).normal(size=(4, 3, 40))
    comparison = judged(sweep({name: 5 + scale * one for name, scale, one in zip("abcd", scales, draws, strict=True)}))
    found = power(comparison)
    assert found is not None and found.undecided == found.pairs == 6
    seen = [visible(pair.difference.error, pair.pooled, 0.05 / 6) for pair in comparison.pairs.values()]
    assert sorted(seen)[2] == pytest.approx(found.smallest), "the third of six"
