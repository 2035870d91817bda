"""The study of ways to train: which ways there are, in which order they run, and what a row says."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.planned_studies import refusal

from harness import arguments, notebooks, objectives
from harness.execution import Execution, NotActive
from harness.experiment import Experiment, executions
from harness.experiment.executions import Way
from harness.measure.training import Step
from harness.results.builder import TableBuilder
from harness.results.schema import TABLES
from harness.results.validate import validate
from harness.sweeps.expand import plan
from harness.sweeps.spec import load
from harness.training.proof import Proof
from harness.training.trainer import History


def test_ways_are_added_one_by_one_and_left_out_one_by_one() -> None:
    packed, parts = Execution(packing=True), Execution(accumulation=2)
    assert executions.ways({"accumulation": 2, "packing": True}) == [
        Way("baseline", Execution(), added=0, without=None),
        Way("+ packing", packed, added=1, without="accumulation 2"),
        Way("+ accumulation 2", Execution(packing=True, accumulation=2), added=2),
        Way("all without packing", parts, without="packing"),
    ]


def test_one_field_is_added_and_never_left_out() -> None:
    assert [way.label for way in executions.ways({"optimizer": "lion"})] == ["baseline", "+ optimizer lion"]
    assert {way.without for way in executions.ways({"optimizer": "lion"})} == {None}


@pytest.fixture
def run(tmp_path: Path) -> Experiment:
    budget = {"train_examples": 12, "batch_size": 4, "epochs": 1, "max_length": 32, "eval_examples": 1}
    return Experiment("tiny-llama", "factual_summary", "sft", budget, seed=0, device="cpu")


@pytest.mark.slow
def test_every_repeat_runs_each_way_once_and_every_other_in_reverse(run: Experiment) -> None:
    rows = list(executions.study(run, "lora", {"packing": True, "accumulation": 2}, repeats=2))  # type: ignore[arg-type]
    order = [way.label for way in executions.ways({"packing": True, "accumulation": 2})]
    assert [row["way"] for row in rows] == [*order, *order[::-1]]
    assert [row["repeat"] for row in rows] == [0] * 4 + [1] * 4
    builder = TableBuilder(TABLES["ways"])
    builder.extend(rows, trial_id="0" * 12)
    validate(TABLES["ways"], builder.finish())
    assert all(row["tokens_per_s"] > 0 and row["activations_bytes"] > 0 for row in rows)
    losses = [row["loss"] for row in rows]
    assert losses == pytest.approx([losses[0]] * 8, rel=1e-5), "no way changes what is learnt"
    assert all(json.loads(row["evidence"]) for row in rows if row["way"] != "baseline")


@pytest.mark.slow
def test_the_numbers_of_a_way_are_those_of_its_training(run: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five steps, of which the first two warm up: 400 + 500 + 600 tokens in 1 + 2 + 7 s."""
    steps = tuple(
        Step(number, seconds, 100 * (number + 1), 1.0 / number)
        for number, seconds in enumerate([9.0, 8.0, 1.0, 2.0, 7.0], start=1)
    )
    proof = Proof({}, {"packing": "4 examples in 2 rows"})
    history = History(steps, 77.0, 1000, 400, 40, 80, 300, processor_share=0.5, proof=proof)
    asked: list[Any] = []

    def fit(*given: Any) -> History:
        asked.append(given)
        return history

    monkeypatch.setattr(objectives, "fit", fit)
    *_, row = executions.study(run, "lora", {"packing": True}, repeats=1)  # type: ignore[arg-type]
    numbers = {name: row[name] for name in ("tokens_per_s", "step_s", "activations_bytes", "peak_train_bytes", "loss")}
    assert numbers == {
        "tokens_per_s": 150.0,
        "step_s": 2.0,
        "activations_bytes": 300,
        "peak_train_bytes": 1000,
        "loss": 1 / 5,
    }
    assert row["disturbed"] is True and json.loads(row["evidence"]) == {"packing": "4 examples in 2 rows"}
    assert [given[3].execution for given in asked] == [Execution(), Execution(packing=True)]


@pytest.mark.slow
def test_a_way_that_was_not_active_says_why_and_has_no_numbers(
    run: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = objectives.fit

    def refusing(*given: Any, **named: Any) -> Any:
        if given[3].execution.packing:
            raise NotActive("nothing was packed")
        return fit(*given, **named)

    monkeypatch.setattr(objectives, "fit", refusing)
    baseline, packed = executions.study(run, "lora", {"packing": True}, repeats=1)  # type: ignore[arg-type]
    assert packed["reason"] == "nothing was packed" and "tokens_per_s" not in packed
    assert baseline["reason"] is None and baseline["tokens_per_s"] > 0


def test_the_notebook_takes_what_the_study_takes() -> None:
    declared = notebooks.parameters("studies/execution")
    taken = dict(list(inspect.signature(executions.study).parameters.items())[1:])
    assert taken.keys() == arguments.declared("methods", "execution").keys() <= declared.keys()
    assert {name: declared[name] for name in ("tuned_by", "repeats")} == {
        name: taken[name].default for name in ("tuned_by", "repeats")
    }
    assert declared["fields"] == executions.USUAL


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("tuned_by: Lora", "execution.tuned_by: unknown name 'Lora'; did you mean 'lora'?"),
        ("fields: {packin: true}", "execution.fields: unknown name 'packin'; did you mean 'packing'?"),
        ("fields: {packing: 1}", "execution.fields: must be true or false"),
        ("fields: {packing: false}", "execution.fields: must name a field that differs"),
        ("fields: packing", "execution.fields: must be a mapping"),
        ("repeats: 0", "execution.repeats: must be at least 1"),
    ],
)
def test_a_wrong_value_is_one_line_when_it_is_planned(line: str, said: str, tmp_path: Path) -> None:
    assert said in refusal("execution", line, tmp_path)


def test_the_study_is_one_trial_of_its_sweep_whatever_the_block_execution_asks() -> None:
    rows = plan(load("execution")).rows
    (study,) = [row.trial for row in rows if row.trial.method == "execution"]
    assert study.notebook == "studies/execution" and study.execution == Execution()
    assert len(rows) > 4
