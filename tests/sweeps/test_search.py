"""Settings first, seeds second: the plan follows from the sweep and from how trials ended, and from nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import tiny_models as tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from harness import catalog
from harness.errors import InputError
from harness.ledger.ledger import Ledger
from harness.results.selection import Ending
from harness.sweeps import expand, fairness, grids, spec
from harness.sweeps.plan import Plan, Planned
from harness.sweeps.spec import Sweep
from harness.trial import Trial

RATES = [1e-3, 2e-3, 4e-3]
FULL: Mapping[str, Any] = {"full": {"learning_rate": RATES}}
CHAIN: Mapping[str, Any] = {**FULL, "bitdelta": {"learning_rate": [1e-2, 3e-2]}}
Loader = Callable[..., Sweep]
End = Callable[[Trial], Ending]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEBENCH_NOTEBOOKS", str(home / "notebooks"))
        tiny.bench(home)
        yield home


@pytest.fixture
def load(folder: Path) -> Loader:
    def loaded(*overrides: str, **changes: Any) -> Sweep:
        document = yaml.safe_load((folder / "tiny.yaml").read_text())
        usual = {"seeds": [0, 1, 2], "search": {"seeds": 1}, "methods": FULL}
        (folder / "changed.yaml").write_text(yaml.safe_dump({**document, **usual, **changes}, sort_keys=False))
        return spec.load(folder / "changed.yaml", overrides)

    return loaded


def well(trial: Trial) -> Ending:
    """Ends well; of the rates, the one in the middle is the best."""
    return Ending("ok", -abs((trial.learning_rate or 0) - 2e-3), True)


def run(sweep: Sweep, end: End = well, stop_after: int | None = None) -> tuple[list[Plan], dict[str, Ending]]:
    """Every plan until nothing new follows, and how the trials ended; at most so many run, as if it were killed."""
    ended: dict[str, Ending] = {}
    return plans(sweep, ended, end, stop_after), ended


def plans(sweep: Sweep, ended: dict[str, Ending], end: End, stop_after: int | None = None) -> list[Plan]:
    made: list[Plan] = []
    while not made or made[-1].by_id.keys() != expand.plan(sweep, ended.get).by_id.keys():
        made.append(expand.plan(sweep, ended.get))
        for row in made[-1].rows:
            if row.trial_id not in ended and stop_after != len(ended):
                ended[row.trial_id] = end(row.trial) if row.reason is None else Ending("skipped")
        if stop_after == len(ended):
            break
    return made


def cells(plan: Plan, method: str = "full") -> list[tuple[int, float | None]]:
    return [(row.trial.seed, row.trial.learning_rate) for row in plan.runnable if row.trial.method == method]


def test_settings_run_on_the_first_seed_and_the_best_one_on_all(load: Loader) -> None:
    first, second = run(load())[0]
    assert cells(first) == [(0, rate) for rate in RATES]
    assert (sum(one.trials for one in first.later), second.later) == (2, ())
    assert cells(second) == [*cells(first), (1, 2e-3), (2, 2e-3)]


def test_nothing_is_chosen_while_a_setting_still_runs(load: Loader) -> None:
    sweep = load()
    first = expand.plan(sweep)
    ended = {row.trial_id: well(row.trial) for row in first.rows[:2]}
    assert expand.plan(sweep, ended.get).document() == first.document()


def test_with_two_seeds_of_search_their_mean_decides(load: Loader) -> None:
    scores = {(0, 1e-3): 0.9, (1, 1e-3): 0.1, (0, 2e-3): 0.6, (1, 2e-3): 0.6, (0, 4e-3): 0.95, (1, 4e-3): None}

    def end(trial: Trial) -> Ending:
        score = scores.get((trial.seed, trial.learning_rate or 0), 0.5)
        return Ending("ok", score, True) if score is not None else Ending("diverged")

    first, second = run(load(search={"seeds": 2}), end)[0]
    assert len(first.rows) == 6
    assert cells(second)[6:] == [(2, 2e-3)], "4e-3 diverged on a seed, and 1e-3 has the lower mean"


def test_lower_is_better_and_equal_ones_go_to_the_smaller_rate(load: Loader) -> None:
    losses = {1e-3: 3.0, 2e-3: 1.0, 4e-3: 1.0}
    last = run(load(), lambda trial: Ending("ok", losses[trial.learning_rate or 0], False))[0][-1]
    assert cells(last)[3:] == [(1, 2e-3), (2, 2e-3)]


def test_a_child_starts_from_the_chosen_setting_on_every_seed(load: Loader) -> None:
    made, _ = run(load(methods=CHAIN))
    assert [len(plan.rows) for plan in made] == [3, 3 + 2 + 2, 3 + 2 + 2 + 2]
    assert [sum(one.trials for one in plan.later) for plan in made] == [2 + 4, 2, 0]
    last = made[-1]
    for row in last.rows:
        if row.trial.method == "bitdelta":
            (parent,) = row.trial.parents["full"]
            assert last.by_id[parent].trial.learning_rate == 2e-3
            assert last.by_id[parent].trial.seed == row.trial.seed
    # What a child may start from keeps its checkpoint, although no child is planned yet.
    assert made[0].parents == made[0].by_id.keys()
    assert made[1].parents == {row.trial_id for row in last.rows if row.trial.learning_rate == 2e-3}


def test_without_a_search_every_setting_runs_on_every_seed_and_the_plan_does_not_follow_the_endings(
    load: Loader,
) -> None:
    (plan,), _ = run(load(search=None, methods=CHAIN))
    assert len(plan.rows) == 3 * 3 + 2 * 3
    assert plan.later == ()
    assert len(next(row for row in plan.rows if row.trial.method == "bitdelta").trial.parents["full"]) == 3


def test_where_no_setting_ended_well_the_other_seeds_say_so(load: Loader) -> None:
    last = run(load(methods=CHAIN), lambda _: Ending("diverged"))[0][-1]
    lost = [(row.trial.seed, row.reason) for row in last.skipped if row.trial.method == "full"]
    assert lost == [(seed, "none of the 3 settings that were tried on seed 0 ended well") for seed in (1, 2)]
    assert last.later == ()
    children = [row for row in last.rows if row.trial.method == "bitdelta"]
    assert len(children) == 2 + 2, "they are planned, and the driver says that their parent did not end well"


def test_one_setting_needs_no_search(load: Loader) -> None:
    (plan,), _ = run(load(methods={"full": {"learning_rate": 1e-3}, "baseline": {}}))
    assert Counter(row.trial.method for row in plan.rows) == {"full": 3, "baseline": 1}
    assert plan.later == ()


def test_each_rank_searches_for_itself(load: Loader) -> None:
    sweep = load(methods={"lora": {"r": [4, 8], "learning_rate": RATES}})
    best = {4: 1e-3, 8: 4e-3}
    last = run(sweep, lambda t: Ending("ok", float(t.learning_rate == best[t.method_args["r"]]), True))[0][-1]  # type: ignore[index]
    later = [(t.method_args["r"], t.learning_rate) for t in (row.trial for row in last.rows) if t.seed == 2]
    assert later == [(4, 1e-3), (8, 4e-3)]


def test_only_a_later_seed_runs_what_it_waits_for(load: Loader) -> None:
    sweep = load(methods={**FULL, "lora": {"learning_rate": RATES}})
    first, second = run(sweep)[0]
    wanted: dict[str, list[JsonValue]] = {"method": ["lora"], "seed": [2]}
    waits = {row.trial_id for row in first.rows if row.trial.method == "lora"}
    assert first.matching(wanted) == waits
    (row,) = second.only(wanted).rows
    assert (row.trial.method, row.trial.seed, row.trial.learning_rate) == ("lora", 2, 2e-3)
    assert [one.facts["method"] for one in first.only({"method": ["full"]}).later] == ["full"]
    with pytest.raises(InputError, match="seed=7: no trial of the sweep has it"):
        first.matching({"seed": [7]})


def test_what_is_excluded_on_a_seed_is_not_planned_there(load: Loader) -> None:
    last = run(load(exclude=[{"method": "full", "seed": 0}, {"method": "full", "learning_rate": 4e-3}]))[0][-1]
    assert cells(last) == [(1, 1e-3), (1, 2e-3), (2, 2e-3)], "its first seed is the first one that it has"


def test_a_parent_that_is_excluded_on_a_seed_runs_on_it_for_its_child(load: Loader) -> None:
    methods = {"full": {"learning_rate": 1e-3}, "bitdelta": {"learning_rate": 1e-2}}
    plan = expand.plan(load(search=None, methods=methods, exclude=[{"method": "full", "seed": 1}]))
    assert len(plan.rows) == 6
    plan = expand.plan(load(search=None, methods=methods, exclude=[{"seed": 1}]))
    assert {row.trial.seed for row in plan.rows} == {0, 2}, "no child, no parent"


STATUSES = st.sampled_from(["ok", "ok", "diverged", "oom"])


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ends=st.lists(st.tuples(STATUSES, st.floats(0, 1)), min_size=5, max_size=5),
    killed=st.integers(0, 12),
    tries=st.integers(1, 3),
)
def test_a_sweep_that_was_killed_anywhere_comes_to_the_same_trials(
    load: Loader, ends: list[tuple[str, float]], killed: int, tries: int
) -> None:
    sweep = load(methods=CHAIN, search={"seeds": tries})

    def end(trial: Trial) -> Ending:
        status, score = ends[int(trial.trial_id, 16) % len(ends)]
        return Ending(status, score if status == "ok" else None, True)

    made, whole = run(sweep, end)
    assert whole.keys() == made[-1].by_id.keys(), "each plan adds to the one before"
    assert made[-1].later == ()
    _, part = run(sweep, end, stop_after=killed)
    plans(sweep, part, end)
    assert part == whole
    assert all(len({row.trial.learning_rate for row in made[-1].rows if row.trial.seed == seed and
                    row.trial.method == "full"}) == 1 for seed in range(tries, 3))  # fmt: skip


def test_what_is_planned_later_survives_the_file(load: Loader, tmp_path: Path) -> None:
    plan = expand.plan(load(methods=CHAIN))
    Ledger.create(tmp_path, plan, "name: tiny\n")
    assert Ledger.open(tmp_path).plan.later == plan.later
    kept = [json.loads((tmp_path / "trials" / i / "trial.json").read_text())["is_parent"] for i in plan.by_id]
    assert kept == [True] * 3


def test_the_file_of_a_sweep_keeps_the_search(load: Loader, tmp_path: Path) -> None:
    (tmp_path / "again.yaml").write_text(load(search={"seeds": 2}).to_yaml())
    again = spec.load(tmp_path / "again.yaml").search
    assert again is not None and again.seeds == 2


# --- numbers of training examples ---


def sizes(plan: Plan, method: str) -> list[int]:
    return [row.trial.budget.train_examples for row in plan.rows if row.trial.method == method]


def test_numbers_of_examples_are_an_axis_of_everything_that_trains(load: Loader) -> None:
    methods = {"full": {"learning_rate": 1e-3}, "baseline": {}}
    plan = expand.plan(load(methods=methods, budget={"train_examples": [32, 64, 128]}, seeds=[0, 1]))
    assert sorted(sizes(plan, "full")) == [32, 32, 64, 64, 128, 128]
    assert sizes(plan, "baseline") == [128], "what does not train does not depend on them"
    assert len(plan.matching({"train_examples": [64]})) == 2


def test_a_child_starts_from_the_parent_with_its_number_of_examples(load: Loader) -> None:
    plan = run(load(methods=CHAIN, budget={"train_examples": [32, 64]}))[0][-1]
    children = [row.trial for row in plan.rows if row.trial.method == "bitdelta"]
    assert len(children) == 2 * (2 + 2)
    for child in children:
        (parent,) = child.parents["full"]
        assert plan.by_id[parent].trial.budget == child.budget


def test_each_number_of_examples_searches_for_itself(load: Loader) -> None:
    sweep = load(budget={"train_examples": [32, 64]})
    best = {32: 1e-3, 64: 4e-3}
    last = run(sweep, lambda t: Ending("ok", float(t.learning_rate == best[t.budget.train_examples]), True))[0][-1]
    chosen = {(t.budget.train_examples, t.learning_rate) for t in (row.trial for row in last.rows) if t.seed == 1}
    assert chosen == {(32, 1e-3), (64, 4e-3)}


def test_an_override_may_have_numbers_of_its_own(load: Loader) -> None:
    overrides = [{"match": {"task": "trec"}, "budget": {"train_examples": [8, 16]}}]
    assert sorted(sizes(expand.plan(load(overrides=overrides, seeds=[0])), "full")) == [8, 8, 8, 16, 16, 16]


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"train_examples": []}, "budget.train_examples: an empty list is no axis"),
        ({"train_examples": [8, 8]}, "budget.train_examples: a value is given twice"),
        ({"train_examples": [8, 0]}, "budget.train_examples: "),
        ({"train_examples": "8"}, "budget.train_examples: "),
        ({"batch_size": [8, 16]}, "budget.batch_size: "),
    ],
)
def test_one_line_says_what_is_wrong_with_the_numbers(load: Loader, given_: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        load(budget=given_)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_list_in_an_override_is_refused(load: Loader) -> None:
    overrides = [{"match": {"task": "trec"}, "budget": {"train_examples": []}}]
    with pytest.raises(InputError, match=r"overrides.0.budget.train_examples: an empty list is no axis"):
        expand.plan(load(overrides=overrides))


# --- grids ---


def rates(plan: Plan) -> dict[str, list[float | None]]:
    by_method: dict[str, list[float | None]] = {}
    for row in plan.runnable:
        by_method.setdefault(row.trial.method, []).append(row.trial.learning_rate)
    return by_method


def test_methods_without_learning_rates_get_equally_many(load: Loader) -> None:
    plan = expand.plan(load(search=None, seeds=[0], defaults={}, methods=["full", "lora", "baseline"]))
    assert rates(plan) == {"baseline": [None], "full": [1e-4, 3e-4, 6e-4], "lora": [1e-3, 3e-3, 1e-2]}
    assert list(fairness.remarks(plan)) == [
        "learning rates of full by default: 0.0001, 0.0003, 0.0006",
        "learning rates of lora by default: 0.001, 0.003, 0.01",
    ]


def test_a_rate_that_is_given_stays_and_unequal_numbers_are_told(load: Loader) -> None:
    methods = {"full": {"learning_rate": 5e-4}, "lora": {}}
    plan = expand.plan(load(seeds=[0, 1], defaults={}, methods=methods))
    assert rates(plan) == {"full": [5e-4, 5e-4], "lora": [1e-3, 3e-3, 1e-2]}
    assert list(fairness.remarks(plan)) == [
        "learning rates of lora by default: 0.001, 0.003, 0.01",
        "not every method gets as many settings (protocol, rule 1): full 1, lora 3 "
        "(classification, minilm-l6-22m, trec)",
        "1 more are planned when the settings before them have been tried",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"defaults": {"learning_rate": 7e-4}},
        {"objectives": {"classification": {"learning_rate": 7e-4}}},
        {"overrides": [{"match": {"task": "trec"}, "methods": {"lora": {"learning_rate": 7e-4}}}]},
    ],
)
def test_a_rate_may_be_given_anywhere(load: Loader, changes: dict[str, Any]) -> None:
    plan = expand.plan(load(seeds=[0], **{"defaults": {}, "methods": ["lora"], **changes}))
    assert (rates(plan), plan.grids) == ({"lora": [7e-4]}, ())


@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder_decoder"])
def test_every_method_has_as_many_rates_which_rise(kind: str) -> None:
    for name, method in catalog.METHODS.items():
        for objective in catalog.OBJECTIVES.values() if method.trains else ():
            rates_of_method = grids.default_rates(name, kind, objective, 1e-3)
            assert len(set(rates_of_method)) == grids.SIZE
            assert rates_of_method == sorted(rates_of_method)


def test_what_starts_from_an_sft_model_takes_a_fifth_and_an_unknown_method_what_is_usual() -> None:
    sft, dpo = catalog.OBJECTIVES["sft"], catalog.OBJECTIVES["dpo"]
    assert grids.default_rates("lora", "decoder", sft, 9.0) == [3e-4, 1e-3, 3e-3]
    assert grids.default_rates("lora", "decoder", dpo, 9.0) == [6e-5, 2e-4, 6e-4]
    assert grids.default_rates("of_ones_own", "decoder", sft, 1e-2) == [3.3e-3, 1e-2, 3e-2]


def test_the_page_shows_the_rates_of_every_method() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    for name, grid in grids.GRIDS.items():
        told = (", ".join(f"{rate:g}" for rate in some) for some in (grid.decoder, grid.encoder))
        assert f"| `{name}` | {' | '.join(told)} |" in page


def test_a_skipped_cell_has_no_settings(load: Loader) -> None:
    plan = expand.plan(load(seeds=[0], methods=FULL))
    skipped = Plan("s", tuple(Planned(row.trial, "no") for row in plan.rows))
    assert list(fairness.remarks(skipped)) == []
