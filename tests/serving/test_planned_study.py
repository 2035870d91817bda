"""A study is planned like a trial: its notebook, its function and its sweep agree."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, cast, get_args

import pandas as pd
import pytest
from helpers import command_line, own_tasks
from helpers.planned_studies import refusal

from harness import arguments, catalog, notebooks
from harness.estimate.time import work_of, work_of_row
from harness.serving import study
from harness.sweeps.expand import plan
from harness.sweeps.spec import load

pytestmark = pytest.mark.slow


def test_names_of_strategies_are_those_that_a_sweep_may_give() -> None:
    assert get_args(study.Name) == tuple(study.STRATEGIES)


def test_the_notebook_takes_what_the_study_takes() -> None:
    declared = notebooks.parameters("studies/serving")
    taken = dict(list(inspect.signature(study.study).parameters.items())[1:])
    assert taken.keys() <= declared.keys()
    assert {*taken, "merged_methods"} - {"seed"} == arguments.declared("methods", "serving").keys() - {"seed"}
    own = {name: declared[name] for name in taken if taken[name].default is not None}
    assert own == {name: parameter.default for name, parameter in taken.items() if name in own}
    assert declared["strategies"] == list(study.STRATEGIES)


def test_the_built_in_sweep_covers_tenants_batches_and_popularities_in_six_trials() -> None:
    sweep = plan(load("serving"))
    settings = [
        (
            args["popularity"],
            *(tuple(cast(list[Any], args[name])) for name in ("tenants", "requests", "merged_methods")),
        )
        for args in (row.trial.method_args for row in sweep.rows)
    ]
    merged, none = ("lora", "qlora", "dora"), ()
    assert sorted(settings) == sorted([
        ("distinct", (1, 4, 16), none, merged), ("distinct", (64,), none, none), ("distinct", (16,), (1, 4, 64), none),
        *((popularity, (16,), none, none) for popularity in ("uniform", "zipf", "identical")),
    ])  # fmt: skip
    every = [row.trial.method_args["strategies"] for row in sweep.rows if row.trial.method_args["merged_methods"]]
    assert every == [list(study.STRATEGIES)]
    assert all(count for _, count in sweep.excluded), "an entry of exclude that matches nothing"
    assert all(row.trial.notebook == "studies/serving" and row.reason is None for row in sweep.rows)
    assert work_of(sweep.rows[0]) is None and work_of_row({"method": "serving"}) is None, "no time is promised"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("strategies: [batched Lora]", "methods.serving.strategies: unknown name"),
        ("popularity: usual", "methods.serving.popularity"),
        ("tenants: [0]", "methods.serving.tenants: must be at least 1"),
    ],
)
def test_a_wrong_value_is_one_line_when_it_is_planned(line: str, said: str, tmp_path: Path) -> None:
    assert said in refusal("serving", line, tmp_path)


TENANTS = """
name: tenants
models: [tiny-llama]
tasks: [{task}]
seeds: [0, 1]
budget: {{train_examples: 4, batch_size: 2, max_length: 32, eval_examples: 1}}
methods: {{lora: {{learning_rate: 1e-3}}}}
keep_artifacts: true
"""
SERVING = """
name: served
models: [tiny-llama]
tasks: [{task}]
budget: {{max_length: 32, eval_examples: 2}}
methods:
  serving:
    strategies: [base alone, batched LoRA, batched adapters]
    tenants: [3]
    new_tokens: 2
    rounds: 1
    merged_methods: []
"""


def test_the_checkpoints_of_a_sweep_serve_as_tenants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As docs/serving.md says: a sweep that keeps its artefacts, and their folder in the study's arguments."""
    rows = "".join(f'{{"q": "what follows {n}", "a": "{n + 1}"}}\n' for n in range(16))
    task = own_tasks.task(tmp_path, "rows.jsonl", rows, own_tasks.GENERATION, max_new_tokens=2)
    for name, document in {"tenants": TENANTS, "served": SERVING}.items():
        (tmp_path / f"{name}.yaml").write_text(document.format(task=task), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert command_line.run(monkeypatch, capsys, "run", "tenants.yaml")[0] == 0
    trained = f"methods.serving.trained={tmp_path}/results/tenants/artifacts"
    code, _, err = command_line.run(monkeypatch, capsys, "run", "served.yaml", "--set", trained)
    assert code == 0, err
    served = pd.read_parquet(tmp_path / "results" / "served" / "tables" / "serving.parquet")
    assert served.groupby("strategy").tenants_from.first().dropna().to_dict() == {
        "batched LoRA": "2 from trials, 1 made up",
        "batched adapters": "made up",
    }
    assert served.p50_s.gt(0).all() and served.reason.isna().all()


def test_a_study_is_no_method_to_choose() -> None:
    assert catalog.method("serving").functions[0] == "serving/study.study"
    assert not catalog.STUDIES.keys() & catalog.METHODS.keys()
