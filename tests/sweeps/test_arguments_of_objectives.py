"""What stands under the name of an objective: its own arguments and the rate, checked whatever the sweep trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import InputError
from harness.sweeps import expand, spec
from harness.sweeps.plan import Plan

SWEEP: dict[str, Any] = {"name": "s", "models": ["smollm2-135m"], "tasks": ["factual_preference"], "methods": ["lora"]}


def planned(folder: Path, **fields: Any) -> Plan:
    (folder / "s.yaml").write_text(yaml.safe_dump({**SWEEP, **fields}), encoding="utf-8")
    return expand.plan(spec.load(folder / "s.yaml"))


@pytest.mark.parametrize(
    ("methods", "objectives", "says"),
    [
        (["baseline"], {"dpo": {"beta": -1}}, r"objectives\.dpo\.beta: must be greater than 0 \(given: -1\)"),
        (["baseline"], {"dpo": {"k": 100}}, r"objectives\.dpo: unknown name 'k'; valid: beta, device, dtype"),
        ({"full_top_k": {}}, {"sft": {"k": 1}}, r"objectives\.sft: unknown name 'k'; valid: device, dtype"),
        (["lora"], {"sft": {"r": 8}}, r"objectives\.sft: unknown name 'r'"),
        (["lora"], {"sft": {"mix_cap": 3}}, r"objectives\.sft\.mix_cap: a sweep does not set it here; notebooks/"),
        (["lora"], {"sft": {"packing": True}}, r"objectives\.sft\.packing: .* write execution\.packing$"),
        (["lora"], {"dpo": {"beta": 1e300}}, r"objectives\.dpo\.beta: must be at most 1e\+06"),
    ],
)
def test_what_an_objective_does_not_take_is_refused(
    tmp_path: Path, methods: Any, objectives: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        planned(tmp_path, methods=methods, objectives=objectives)


def test_the_rate_under_an_objective_is_that_of_what_it_trains(tmp_path: Path) -> None:
    plan = planned(tmp_path, objectives={"sft": {"learning_rate": [1, 2e-4], "dtype": "bfloat16"}})
    trials = [row.trial for row in plan.runnable]
    assert [(trial.learning_rate, trial.dtype) for trial in trials] == [(1.0, "bfloat16"), (2e-4, "bfloat16")]
    assert all(trial.objective_args == {} and trial.notebook == "methods/lora" for trial in trials)
    assert all(isinstance(trial.learning_rate, float) for trial in trials)
