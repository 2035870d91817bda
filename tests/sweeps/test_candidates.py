"""Which trials a plan has others start from, and by which they are judged: with the real notebooks and catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.results.selection import Ending
from harness.sweeps import expand, spec
from harness.sweeps.plan import Plan
from harness.trial import Trial

PAIRS = {"models": ["smollm2-135m"], "tasks": ["factual_preference"]}


def planned(folder: Path, **document: Any) -> Plan:
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump({"name": "s", **document}, sort_keys=False), encoding="utf-8")
    return expand.plan(spec.load(path))


def facts(plan: Plan, trial: Trial, role: str) -> list[tuple[str, str, float | None, int]]:
    """Method, objective, learning rate and seed of the candidates for a role."""
    found = [plan.by_id[trial_id].trial for trial_id in trial.parents[role]]
    return [(of.method, of.objective, of.learning_rate, of.seed) for of in found]


def of(plan: Plan, objective: str) -> list[Trial]:
    return [row.trial for row in plan.runnable if row.trial.objective == objective]


def test_every_rate_of_a_full_fine_tune_may_be_bitdeltas_parent(tmp_path: Path) -> None:
    methods: Mapping[str, Any] = {"full": {"learning_rate": [1e-5, 5e-5]}, "bitdelta": {"learning_rate": 1e-2}}
    plan = planned(tmp_path, models=["smollm2-135m"], tasks=["factual_summary"], methods=methods, seeds=[0, 1])
    assert len(plan.runnable) == 2 * 2 + 2, "the candidates are trials of the sweep anyway"
    for trial in (row.trial for row in plan.runnable if row.trial.method == "bitdelta"):
        assert facts(plan, trial, "full") == [("full", "sft", rate, trial.seed) for rate in (1e-5, 5e-5)]


def test_what_a_sweep_excludes_is_no_candidate(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        models=["smollm2-135m"],
        tasks=["factual_summary"],
        methods={"full": {"learning_rate": [1e-5, 5e-5]}, "bitdelta": {"learning_rate": 1e-2}},
        exclude=[{"method": "full", "learning_rate": 1e-5}],
    )
    (child,) = [row.trial for row in plan.runnable if row.trial.method == "bitdelta"]
    assert [rate for _, _, rate, _ in facts(plan, child, "full")] == [5e-5]


@pytest.mark.parametrize(
    ("methods", "shared"),
    [
        ({"lora": {"r": [4, 8], "learning_rate": 1e-4}, "full": {"learning_rate": [1e-5, 5e-5]}}, "full"),
        ({"lora": {"r": [4, 8], "learning_rate": 1e-4}, "bitfit": {"learning_rate": 1e-3}}, "lora"),
    ],
)
def test_one_judge_and_one_opponent_serve_all_methods_of_a_seed(
    tmp_path: Path, methods: dict[str, Any], shared: str
) -> None:
    plan = planned(tmp_path, **PAIRS, methods=methods, objectives={"dpo": {}, "orpo": {}, "ppo": {}}, seeds=[0, 1])
    for seed in (0, 1):
        trials = [t for name in ("dpo", "orpo", "ppo") for t in of(plan, name) if t.seed == seed]
        assert len({t.method for t in trials}) == 2
        for role, objective in (("reward", "reward"), ("opponent", "sft")):
            assert len({t.parents[role] for t in trials}) == 1
            candidates = facts(plan, trials[0], role)
            assert len(candidates) == 2, "every setting that the sweep has for that method"
            assert {(method, kind, of_seed) for method, kind, _, of_seed in candidates} == {(shared, objective, seed)}
    starts = {(t.method, t.method_args.get("r")): facts(plan, t, "sft") for t in of(plan, "dpo") if t.seed == 0}
    assert all(facts[0][0] == method for (method, _), facts in starts.items()), "a policy starts from its own method"
    assert "sft" not in of(plan, "orpo")[0].parents


def test_a_method_that_starts_from_another_is_neither_judge_nor_opponent(tmp_path: Path) -> None:
    methods: Mapping[str, Any] = {"bitdelta": {}, "lora": {"learning_rate": 1e-3}}
    plan = planned(tmp_path, **PAIRS, methods=methods, objectives={"dpo": {}})
    (child,) = of(plan, "dpo")
    assert {method for role in ("reward", "opponent") for method, *_ in facts(plan, child, role)} == {"lora"}


def test_a_search_decides_link_by_link_along_a_chain(tmp_path: Path) -> None:
    """PPO starts from an SFT model and a reward model; each is chosen before what starts from it is planned."""
    ended: dict[str, Ending] = {}
    document = {**PAIRS, "methods": {"lora": {}}, "objectives": {"ppo": {}}, "seeds": [0, 1], "search": {"seeds": 1}}
    planned(tmp_path, **document)
    sweep, sizes, last = spec.load(tmp_path / "s.yaml"), [], None
    while last is None or last.later:
        last = expand.plan(sweep, ended.get)
        sizes.append(len(last.rows))
        ended |= {row.trial_id: Ending("ok", row.trial.learning_rate, True) for row in last.rows}
    # Three rates of each link on seed 0, and the best one on seed 1.
    assert sizes == [2 * 3, 2 * (3 + 1) + 3, 2 * (3 + 1) + 3 + 1]
    for trial in of(last, "ppo"):
        for role, objective in (("sft", "sft"), ("reward", "reward"), ("opponent", "sft")):
            assert facts(last, trial, role) == [("lora", objective, 3e-3, trial.seed)]
    assert {trial.learning_rate for trial in of(last, "ppo") if trial.seed == 1} == {6e-4}
    assert {trial.learning_rate for trial in of(last, "ppo") if trial.seed == 0} == {6e-5, 2e-4, 6e-4}
