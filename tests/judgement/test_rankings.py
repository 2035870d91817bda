"""Ranks, fronts, scores over tasks and strengths, with known answers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers.scored_tables import Cell, noisy, scored
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from harness.judgement import normalised
from harness.judgement.bradley_terry import guards, rated, rated_by, ratings
from harness.judgement.fronts import costs_drawn, front_shares, on_front
from harness.judgement.intervals import Floats
from harness.judgement.normalised import _one, iqm, over_tasks
from harness.judgement.ranks import ranks, ranks_of
from harness.judgement.resampling import resampled
from harness.judgement.statistics import aggregate
from harness.judgement.verdicts import Comparison, compare

UNTRAINED = {"method_args": '{"shots": 0}'}


def comparisons(tables: dict[str, pd.DataFrame]) -> list[Comparison]:
    return compare(aggregate(tables), tables)


def test_draws_vary_as_the_error_says_and_rows_share_their_examples() -> None:
    cells = [Cell("lora", noisy(0.5, seed=1, spread=0.01)), Cell("full", noisy(0.6, seed=2, spread=0.01))]
    (comparison,) = comparisons(scored(*cells))
    draws = resampled(comparison, 4000)
    assert draws.mean(axis=0) == pytest.approx(comparison.rows.test_score.to_numpy(), abs=0.003)
    assert draws.std(axis=0) == pytest.approx(0.4 / np.sqrt(200), rel=0.15)
    assert (draws[:, 0] - draws[:, 1]).std() < 0.01, "the hard examples are hard for both"
    assert (resampled(comparison, 50) == resampled(comparison, 50)).all()


def test_seeds_that_differ_make_draws_wide_and_one_seed_leaves_the_examples() -> None:
    examples = noisy(0.5, spread=0.0)
    of_seeds = examples + np.array([[-0.3], [0.0], [0.3]])
    (comparison,) = comparisons(scored(Cell("lora", of_seeds)))
    middle = np.subtract(*np.quantile(resampled(comparison), [0.75, 0.25]))
    # The quartiles of Student's t of 2 degrees of freedom stand at ±0.8165; the standard error is 0.3 / sqrt(3).
    assert middle == pytest.approx(2 * 0.8165 * 0.3 / np.sqrt(3), rel=0.1)
    (alone,) = comparisons(scored(Cell("lora", of_seeds[:1])))
    assert resampled(alone).std() == pytest.approx(0.4 / np.sqrt(200), rel=0.15)


def test_examples_from_one_source_are_drawn_together() -> None:
    of_sources = np.repeat(np.random.default_rng(0).normal(0, 0.4, 50), 4)
    tables = scored(Cell("lora", np.tile(of_sources, (1, 1))))
    tables["example_scores"]["example"] = [f"s{n // 4}-{n}" for n in range(200)]
    (comparison,) = comparisons(tables)
    assert resampled(comparison).std() == pytest.approx(of_sources.std() / np.sqrt(50), rel=0.15)


def test_rows_without_scores_of_examples_move_by_their_standard_errors() -> None:
    tables = scored(Cell("lora", noisy(0.5, 1)))
    (comparison,) = comparisons({"trials": tables["trials"]})
    assert resampled(comparison).std() == pytest.approx(tables["trials"].test_stderr.iloc[0], rel=0.1)


DRAWS = st.integers(2, 4).flatmap(
    lambda rows: st.lists(st.lists(st.integers(0, 3), min_size=rows, max_size=rows), min_size=2, max_size=12)
)


@settings(max_examples=60, deadline=None)
@given(DRAWS)
def test_the_probabilities_of_ranks_add_up(given_draws: list[list[int]]) -> None:
    draws = np.array(given_draws, dtype=np.float64)
    found = ranks_of(draws)
    assert found.shares.sum(axis=0) == pytest.approx(1)
    assert found.shares.sum(axis=1) == pytest.approx(1)
    assert -1 <= found.tau <= 1


def test_ranks_by_hand() -> None:
    found = ranks_of(np.array([[3.0, 2.0, 1.0], [3.0, 1.0, 2.0], [3.0, 1.0, 1.0], [0.0, 2.0, 1.0]]))
    assert found.shares.tolist() == [[0.75, 0.0, 0.25], [0.25, 0.375, 0.375], [0.0, 0.625, 0.375]]
    assert found.first.tolist() == [0.75, 0.25, 0.0]


def test_tau_is_kendalls() -> None:
    draws = np.random.default_rng(0).normal(size=(40, 5)) + np.arange(5)
    expected = np.mean([kendalltau(a, b).statistic for a, b in zip(draws[:20], draws[20:], strict=True)])
    assert ranks_of(draws).tau == pytest.approx(expected)


def test_lower_is_better_turns_the_ranks_round() -> None:
    cells = [Cell("lora", noisy(4.0, seed=1), {"higher_is_better": False}),
             Cell("full", noisy(5.0, seed=2), {"higher_is_better": False})]  # fmt: skip
    (comparison,) = comparisons(scored(*cells, metric="perplexity"))
    found = ranks(comparison)
    assert comparison.rows.method.tolist() == ["lora", "full"]
    assert found is not None and found.first == pytest.approx([1, 0], abs=0.02)
    assert ranks(comparisons(scored(cells[0], metric="perplexity"))[0]) is None


def test_a_front_by_hand() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.9], [0.7, 0.8, 0.7, 0.9]])
    costs = np.array([[3.0, 2.0, 2.0, np.nan]] * 2)
    found = front_shares(scores, costs)
    assert found[:3].tolist() == [0.5, 1.0, 0.0] and np.isnan(found[3])
    assert front_shares(np.ones((1, 2)), np.ones((1, 2))).tolist() == [1.0, 1.0], "equal rows do not beat each other"


def test_costs_vary_as_their_seeds_do() -> None:
    drawn = costs_drawn([[1.0, 2.0, 4.0], [5.0], [], [7.0, 7.0]])
    assert np.median(drawn[:, 0]) == pytest.approx(2.0, rel=0.1) and drawn[:, 0].std() > 0
    assert (drawn[:, 1] == 5).all() and np.isnan(drawn[:, 2]).all() and (drawn[:, 3] == 7).all()


def test_the_front_of_a_comparison() -> None:
    costs = {"lora": 1.0, "full": 9.0, "head": 9.0}
    levels = {"lora": 0.5, "full": 0.8, "head": 0.2}
    cells = [
        Cell(m, noisy(v, seed=n), costs={"peak_train_bytes": [costs[m]] * 3}) for n, (m, v) in enumerate(levels.items())
    ]
    tables = scored(*cells)
    (comparison,) = comparisons(tables)
    found = dict(zip(comparison.rows.method, on_front(comparison, "peak_train_bytes", tables), strict=True))
    assert found == pytest.approx({"lora": 1.0, "full": 1.0, "head": 0.0}, abs=0.02)


def test_the_interquartile_mean_by_hand() -> None:
    assert iqm(np.array([0.0, 1.0, 2.0, 100.0])) == 1.5
    assert iqm(np.array([1.0, 3.0])) == 2.0
    assert iqm(np.arange(8.0)) == 3.5


def test_scores_over_tasks_have_the_untrained_model_at_0_and_full_at_1() -> None:
    cells = []
    for task in range(4):
        levels = {"baseline": 0.2, "full": 0.6, "lora": 0.2 + 0.4 * (0.5, 0.7, 0.9, 9.0)[task]}
        for n, (method, level) in enumerate(levels.items()):
            columns: dict[str, object] = {"task": f"t{task}", **(UNTRAINED if method == "baseline" else {})}
            cells.append(Cell(method, noisy(level, seed=10 * task + n, spread=0.001), columns))
    cells += [Cell("full", noisy(0.2, seed=98), {"task": "no gain"})]
    found = over_tasks(comparisons(scored(*cells)))
    assert found is not None and (found.tasks, found.left_out) == (4, 1)
    scores = {one.method: one for one in found.methods}
    assert scores["full"].score == pytest.approx(1.0)
    assert scores["lora"].score == pytest.approx(0.8, abs=0.01), "of 0.5, 0.7, 0.9 and 9 the middle two"
    assert scores["lora"].low < 0.8 < scores["lora"].high and scores["lora"].tasks == 4
    assert over_tasks(comparisons(scored(*cells[:3]))) is None, "one task needs no summary"


def answers(strengths: list[float], nu: float, examples: int, seeds: int = 1, seed: int = 0) -> Floats:
    """Judgements of two rows whose results follow Davidson's model."""
    random = np.random.default_rng(seed)
    d = strengths[0] - strengths[1]
    shares = np.exp([d / 2, np.log(nu), -d / 2]) if nu else np.array([np.exp(d / 2), 0, np.exp(-d / 2)])
    results = random.choice([1.0, 0.0, -1.0], (seeds, examples), p=shares / shares.sum())
    return np.stack([results, np.zeros_like(results)], axis=-1)


@pytest.mark.parametrize("nu", [0.0, 0.8])
def test_strengths_are_found_again(nu: float) -> None:
    found = rated(answers([0.4, -0.4], nu, 4000))
    assert found is not None
    assert [one.strength for one in found] == pytest.approx([0.4, -0.4], abs=0.06)
    assert found[0].low < 0.4 < found[0].high
    assert found[0].elo == pytest.approx(400 * found[0].strength / np.log(10))
    assert found[0].wins == found[1].losses and found[0].ties == found[1].ties
    assert found[0].wins + found[0].ties + found[0].losses == 4000


def test_the_odds_of_two_rows_without_ties_are_those_of_their_wins() -> None:
    scores = np.zeros((1, 100, 2))
    scores[0, :75, 0] = 1
    scores[0, 75:, 1] = 1
    found = rated(scores)
    assert found is not None
    assert found[0].strength - found[1].strength == pytest.approx(np.log(3), abs=0.02)


def test_intervals_of_strengths_cover() -> None:
    covered = 0
    for seed in range(60):
        found = rated(answers([0.3, -0.3], 0.5, 150, seed=seed))
        assert found is not None
        covered += found[0].low < 0.3 < found[0].high
    assert covered >= 52, "95 % of 60, less three standard deviations"


def test_many_rows_are_ordered_by_strength_and_a_row_that_wins_always_stays_finite() -> None:
    random = np.random.default_rng(0)
    latent = random.gumbel(size=(2, 500, 4)) + np.array([1.0, 0.0, -1.0, 30.0])
    found = rated(latent)
    assert found is not None
    strengths = [one.strength for one in found]
    assert sorted(strengths) == [strengths[n] for n in (2, 1, 0, 3)]
    assert strengths[0] - strengths[1] == pytest.approx(1.0, abs=0.25)
    assert np.isfinite([found[3].low, found[3].high]).all() and found[3].losses == 0


def test_rows_that_never_met_have_no_rating() -> None:
    scores = np.full((1, 6, 3), np.nan)
    scores[0, :3, :2], scores[0, 3:, 2] = 1.0, 1.0
    assert rated(scores) is None
    (comparison,) = comparisons({"trials": scored(Cell("lora", noisy(0.5)), Cell("full", noisy(0.5)))["trials"]})
    assert ratings(comparison) is None


def test_the_judge_may_be_a_metric_of_which_less_is_better() -> None:
    cells = [Cell("lora", noisy(4.0, seed=1), {"higher_is_better": False}),
             Cell("full", noisy(4.1, seed=2), {"higher_is_better": False})]  # fmt: skip
    (comparison,) = comparisons(scored(*cells, metric="perplexity"))
    found = ratings(comparison)
    assert found is not None and found[0].strength > found[1].strength


def test_what_a_judge_may_like_stands_beside() -> None:
    answers = pd.DataFrame({"trial_id": ["a", "a", "b"], "output": ["x y z x y z", "one", "never"]})
    found = guards(["a"], {"generations": answers})
    assert found is not None and (found.words, found.repetition) == (3.5, 0.25)
    assert guards(["b"], {"generations": answers}) is not None and guards(["c"], {"generations": answers}) is None


def test_a_stored_reward_may_be_the_judge_of_those_who_have_it() -> None:
    tables = scored(*(Cell(m, noisy(0.5, 2, 40, seed=n)) for n, m in enumerate(("lora", "full", "head"))))
    (comparison,) = comparisons(tables)
    assert rated_by("reward", comparison, tables) is None
    rewards = tables["example_scores"].assign(metric="reward")
    of_full = rewards.trial_id.str.contains("full")
    rewards = rewards.assign(value=rewards.value + 5 * of_full)[~rewards.trial_id.str.contains("head")]
    stored = {**tables, "example_scores": pd.concat([tables["example_scores"], rewards])}
    found = rated_by("reward", comparison, stored)
    assert found is not None
    best = {comparison.rows.method[place]: rating.wins for place, rating in found.items()}
    assert best == {"full": 80, "lora": 0}


def test_the_interval_of_a_strength_by_hand() -> None:
    """30 wins, 40 ties and 30 losses of equal rows: the information on the difference is 100 * (1 - 0.4) / 4."""
    scores = np.zeros((1, 100, 2))
    scores[0, :30, 0], scores[0, 70:, 1] = 1.0, 1.0
    found = rated(scores)
    assert found is not None
    half = 1.98422 * 0.5 * np.sqrt(1 / 15 * 100 / 99)  # t(99); a strength is half of the difference
    assert found[0].strength == pytest.approx(0.0, abs=1e-4)
    assert found[0].high - found[0].low == pytest.approx(2 * half, rel=0.01)


def test_costs_vary_by_the_standard_error_of_their_seeds() -> None:
    low, high = np.quantile(costs_drawn([[1.0, 2.0, 4.0]])[:, 0], [0.25, 0.75])
    assert np.log(high / low) == pytest.approx(2 * 0.8165 * np.log(2) / np.sqrt(3), rel=0.1)


def test_two_seeds_have_one_degree_of_freedom() -> None:
    (comparison,) = comparisons(scored(Cell("lora", noisy(0.5, 2, spread=0.0) + np.array([[-0.3], [0.3]]))))
    middle = np.subtract(*np.quantile(resampled(comparison), [0.75, 0.25]))
    assert middle == pytest.approx(2 * 1.0 * 0.3, rel=0.1)


def test_an_interval_over_tasks_leaves_a_fortieth_out_on_either_side() -> None:
    found = _one(("lora", "{}"), np.array([0.5]), np.linspace(0, 1, 1001)[:, None])
    assert (found.low, found.high) == pytest.approx((0.025, 0.975))


def test_every_task_has_draws_of_its_own_and_those_of_full_are_drawn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def noted(comparison: Comparison, seed: int) -> Floats:
        seeds.append(seed)
        return resampled(comparison, seed=seed)

    monkeypatch.setattr(normalised, "resampled", noted)
    cells = [
        Cell(method, noisy(level, seed=seed), {"task": task, **(UNTRAINED if method == "baseline" else {})})
        for task in ("a", "b", "c")
        for seed, (method, level) in enumerate((("baseline", 0.1), ("full", 0.9), ("lora", 0.5)))
    ]
    found = over_tasks(comparisons(scored(*cells)))
    assert seeds == [0, 1, 2]
    (full,) = [one for one in found.methods if one.method == "full"] if found is not None else []
    assert (full.low, full.high) == pytest.approx((1, 1)), "full is 1 in every draw"


def test_seeds_that_contradict_each_other_leave_a_strength_open() -> None:
    scores = np.zeros((2, 20, 2))
    scores[0, :, 0], scores[1, :, 1] = 1.0, 1.0
    found = rated(scores)
    assert found is not None
    half = 12.7062 * np.sqrt(2 * 2 * (10 / 20.04) ** 2)
    assert found[0].high - found[0].low == pytest.approx(2 * half, rel=0.01)


def test_answers_of_one_triple_say_nothing_of_repetition() -> None:
    answers = pd.DataFrame({"trial_id": ["a", "b", "b"], "output": ["x y z", "x y z x y z", "x y z"]})
    found = [guards([one], {"generations": answers}) for one in "ab"]
    assert [None if one is None else one.repetition for one in found] == [None, 0.25]
