"""Recommendations: what fits, what is good enough, what cannot be told apart, and which rows are nearest."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers.scored_tables import Cell, noisy, scored
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.judgement.nearest import nearest
from harness.judgement.recommendation import GOALS, Choice, Costs, choose, names
from harness.judgement.statistics import aggregate
from harness.judgement.verdicts import Comparison, Verdict, compare

GB = 1e9
#: Method -> level, bytes at the peak, seconds of training, stored bytes.
METHODS = {
    "full": (0.60, 9 * GB, 90.0, 9e8),
    "lora": (0.598, 4 * GB, 50.0, 4e6),
    "bitfit": (0.59, 3 * GB, 40.0, 1e6),
    "head": (0.30, 1 * GB, 10.0, 1e3),
}


def tables(seeds: int = 3, spread: float = 0.05, **columns: object) -> dict[str, pd.DataFrame]:
    cells = [Cell("baseline", noisy(0.2, seeds, seed=9), {"method_args": '{"shots": 0}', "base_score": 0.2, **columns})]
    for number, (method, (level, peak, seconds, stored)) in enumerate(METHODS.items()):
        costs = {
            "peak_train_bytes": [peak] * seeds,
            "chain_train_s": [seconds * (1 + 0.01 * seed) for seed in range(seeds)],
            "checkpoint_bytes": [stored] * seeds,
        }
        latency = {"plain": [0.1 + 0.001 * number * seed for seed in range(seeds)]}
        own = {"base_score": 0.2, **columns}
        cells.append(Cell(method, noisy(level, seeds, seed=number, spread=spread), own, costs, latency=latency))
    return scored(*cells)


def chosen(goal: str, memory: float | None = None, **given: int) -> tuple[Comparison, Choice, list[str]]:
    made = tables(**given)
    (comparison,) = compare(aggregate(made), made)
    return (
        comparison,
        choose(comparison, Costs(comparison, made), goal, None if memory is None else int(memory)),
        names(comparison),
    )


def named(places: tuple[int, ...], called: list[str]) -> set[str]:
    return {called[place] for place in places}


@pytest.mark.parametrize(
    ("goal", "memory", "best", "tied"),
    [
        ("score", None, {"full"}, {"lora"}),
        ("score", 5 * GB, {"lora"}, {"bitfit"}),
        ("score", 3.5 * GB, {"bitfit"}, set()),
        ("speed", None, {"bitfit"}, set()),
        ("size", None, {"bitfit"}, set()),
        ("size", 2 * GB, {"head"}, set()),
        ("latency", None, {"full"}, {"lora", "bitfit"}),
    ],
)
def test_the_goal_decides_among_what_fits(goal: str, memory: float | None, best: set[str], tied: set[str]) -> None:
    _, choice, called = chosen(goal, memory)
    assert choice.best is not None and {called[choice.best]} == best
    assert named(choice.tied, called) == tied
    assert choice.is_shown


def test_what_does_not_fit_or_is_not_known_to_is_said() -> None:
    comparison, choice, called = chosen("score", 3.5 * GB)
    assert named(choice.too_large, called) == {"full", "lora"}
    assert choose(comparison, Costs(comparison, tables()), "score", int(0.5 * GB)).best is None
    unknown = choose(comparison, Costs(comparison, tables()), "score", int(5 * GB), {called.index("head"): 1.0})
    assert unknown.best == called.index("head") and named(unknown.unknown, called) == {"full", "lora", "bitfit"}


def test_a_method_without_the_gain_is_not_good_enough_however_cheap() -> None:
    _, choice, called = chosen("speed")
    assert named(choice.not_good, called) == {"head"}
    assert [called[place] for place in choice.considered] == ["bitfit", "lora", "full"]


def test_one_seed_tells_nothing_apart_and_shows_nothing() -> None:
    _, choice, called = chosen("score", seeds=1)
    assert named(choice.tied, called) == {"lora", "bitfit", "head"} and not choice.is_shown
    _, fast, called = chosen("speed", seeds=1)
    assert named(fast.tied, called) == {"lora", "full"}
    _, small, called = chosen("size", seeds=1)
    assert small.tied == (), "bytes are counted"


def test_what_was_not_measured_is_not_recommended() -> None:
    made = tables()
    made["latency"] = made["latency"][made["latency"].trial_id.str.contains("lora")]
    (comparison,) = compare(aggregate(made), made)
    choice, called = choose(comparison, Costs(comparison, made), "latency"), names(comparison)
    assert choice.best == called.index("lora") and named(choice.unmeasured, called) == {"full", "bitfit"}


LEVELS = st.lists(st.floats(-2, 2, allow_nan=False, width=16), min_size=1, max_size=5)


@settings(max_examples=8, deadline=None)
@given(LEVELS, st.booleans(), st.sampled_from([*GOALS]), st.integers(1, 2))
def test_nothing_surely_worse_is_recommended_for_its_score(
    levels: list[float], higher: bool, goal: str, seeds: int
) -> None:
    cells = [
        Cell(f"m{n}", np.round(noisy(level, seeds, 6, seed=n), 2), {"higher_is_better": higher})
        for n, level in enumerate(levels)
    ]
    made = scored(*cells, metric="of_ones_own")
    (comparison,) = compare(aggregate(made), made)
    choice = choose(comparison, Costs(comparison, made), goal)
    if goal != "score":
        assert choice.best is None, "nothing was measured"
        return
    assert choice.best is not None and not choice.is_shown
    assert not any(pair.verdict is Verdict.WORSE for pair in comparison.against(choice.best).values())
    better = {p for p, pair in comparison.against(choice.best).items() if pair.verdict is Verdict.BETTER}
    assert better | set(choice.tied) | {choice.best} == set(range(len(levels)))


def few_rows(seeds: int = 1, **columns: object) -> dict[str, pd.DataFrame]:
    return scored(Cell("lora", noisy(0.5, seeds, 4), {"task_kind": "generation", **columns}))


@pytest.mark.slow
def test_the_nearest_rows_are_those_of_the_model_then_of_the_nearest_size_then_of_the_kind_of_task() -> None:
    sizes = {"small": 1e8, "middle": 1e9, "large": 1e10}
    folders = {
        f"{model} {task}": few_rows(model=model, model_params=size, task=task)
        for model, size in sizes.items()
        for task in (("t",) if model != "middle" else ("t", "u"))
    }

    def found(model: str, task: str, params: float | None = None) -> str | None:
        basis = nearest(folders, model, task, task_kind="generation", params=params)
        return None if basis is None else basis.folder

    assert found("small", "t") == "small t"
    assert found("other", "t", 2e9) == "middle t"
    assert found("small", "u", 1e8) == "middle u", "the task counts before the model"
    assert nearest(folders, "small", "v", task_kind="classification") is None
    not_small = nearest(
        folders, "other", "t", task_kind="generation", params=1e8, same_kind=lambda name: name != "small"
    )
    assert not_small is not None and not_small.folder == "middle t"


def test_of_equally_near_rows_those_with_most_seeds_count_and_the_others_are_counted() -> None:
    folders = {"one": few_rows(), "three": few_rows(seeds=3)}
    basis = nearest(folders, "m", "t", task_kind="generation")
    assert basis is not None
    assert (basis.folder, basis.seeds, basis.others) == ("three", 3, 1)


def test_reward_models_and_the_untrained_are_no_policies() -> None:
    cells = [
        Cell("baseline", noisy(0.3, 1, seed=1)),
        Cell("lora", noisy(0.9, seed=2)),
        Cell("head", noisy(0.5, seed=3)),
    ]
    tables = scored(*cells)
    (comparison,) = compare(aggregate(tables), tables)
    assert [row.method for row in comparison.policies.values()] == ["lora", "head"]
    assert list(comparison.policies) == [n for n, row in enumerate(comparison.listed) if row.method != "baseline"]
    judges = scored(*(Cell(cell.method, cell.scores, {"objective": "reward"}) for cell in cells[1:]))
    assert [one.policies for one in compare(aggregate(judges), judges)] == [{}]


def test_names_tell_rows_of_one_method_apart() -> None:
    cells = [Cell("lora", noisy(0.5 + r / 100, seed=r), {"method_args": f'{{"alpha": 16, "r": {r}}}'}) for r in (4, 8)]
    made = scored(*cells, Cell("full", noisy(0.9)))
    (comparison,) = compare(aggregate(made), made)
    assert names(comparison) == ["full", "lora (r 8)", "lora (r 4)"]


def test_no_two_rows_have_one_name() -> None:
    cells = [
        Cell("lora", noisy(0.5 + n / 1000, seed=n), {"train_examples": n, "execution_packing": packing})
        for n, packing in ((64, False), (64, True), (256, False))
    ]
    made = scored(*cells, Cell("full", noisy(0.9)))
    (comparison,) = compare(aggregate(made), made)
    loras = {"lora (64 examples)", "lora (packing, 64 examples)", "lora (256 examples)"}
    assert {*names(comparison)} == {"full (8 examples)", *loras}


def test_what_is_better_on_shared_seeds_is_not_called_untold() -> None:
    """Full has ten lucky seeds that LoRA lacks; on the ten that both have, LoRA is better."""
    hard = np.tile(np.linspace(-0.1, 0.1, 50), (10, 1))
    lucky = np.vstack([hard + 0.60, hard + 0.75])
    made = scored(Cell("full", lucky), Cell("lora", hard + 0.666))
    (comparison,) = compare(aggregate(made), made)
    choice = choose(comparison, Costs(comparison, made), "score")
    (lora,) = [place for place, row in enumerate(comparison.listed) if row.method == "lora"]
    assert comparison.pair(choice.best or 0, lora).verdict is Verdict.WORSE
    assert (choice.best, choice.tied, choice.ahead) == (1 - lora, (), (lora,))


def test_a_cost_is_the_median_over_seeds() -> None:
    made = scored(*(Cell(method, noisy(0.5, seed=seed)) for seed, method in enumerate(("full", "lora"))))
    made["trials"]["chain_train_s"] = made["trials"].seed.map({0: 10.0, 1: 40.0, 2: 50.0})
    (comparison,) = compare(aggregate(made), made)
    choice = choose(comparison, Costs(comparison, made), "speed")
    assert choice.values is not None and {*choice.values.values()} == {40.0}
