"""The sweeps that come along keep the protocol, and their headers and the page on sweeps say what they are."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from harness import catalog
from harness.sweeps import expand, fairness
from harness.sweeps import spec as sweeps
from harness.sweeps.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
#: What they ask is not which method is better.
NO_COMPARISON = {"quick", "all_methods", "h200", "execution", "serving", "throughput"}
COMPARISONS = sorted({path.stem for path in (ROOT / "sweeps").glob("*.yaml")} - NO_COMPARISON)
SERIES = [f"series/{path.stem}" for path in sorted((ROOT / "sweeps" / "series").glob("*.yaml"))]


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    return {name: expand.plan(sweeps.load(name)) for name in (*COMPARISONS, *SERIES)}


@pytest.mark.parametrize("name", [*COMPARISONS, *SERIES])
def test_a_comparison_has_three_seeds_equal_settings_and_nothing_to_skip(name: str, plans: dict[str, Plan]) -> None:
    plan = plans[name]
    assert len(sweeps.load(name).seeds) == 3
    assert not [line for line in fairness.remarks(plan) if "not every method" in line]
    assert not plan.skipped, "what cannot run is excluded, with its reason beside it"
    assert all(count for _, count in plan.excluded), "an entry of exclude that matches nothing"


@pytest.mark.parametrize("name", [*COMPARISONS, *SERIES])
def test_the_header_says_what_it_answers_and_how_long_it_takes(name: str) -> None:
    header = re.match(r"(?:#.*\n)+", sweeps.find(name).read_text(encoding="utf-8"))
    assert header is not None and "?" in header.group() and "Estimated: " in header.group()
    assert f"| `{name}` | " in PAGE


def test_the_page_lists_the_sweeps_that_there_are() -> None:
    assert sorted(re.findall(r"^\| `([\w/]+)` \| .*\?.* \|$", PAGE, re.MULTILINE)) == sweeps.names()


def test_standard_leaves_no_method_out_and_uses_the_default_grids(plans: dict[str, Plan]) -> None:
    plan, sweep = plans["standard"], sweeps.load("standard")
    assert set(sweep.methods) == set(catalog.METHODS) - {"quantized", "peft"}
    assert {method for method, arguments in sweep.methods.items() if arguments} == set()
    kinds = [(row.trial.model, row.task_kind) for row in plan.runnable]
    tasks = {kind: {row.trial.task for row in plan.runnable if row.task_kind == kind} for _, kind in kinds}
    assert len(tasks["classification"]) >= 3 and len(tasks["generation"]) >= 2
    assert {model for model, _ in kinds} == {"minilm-l6-22m", "smollm2-135m", "gemma3-270m"}


def test_series_vary_what_they_are_named_after(plans: dict[str, Plan]) -> None:
    def values(name: str, fact: str, **where: str) -> set[object]:
        facts = [row.facts() for row in plans[f"series/{name}"].runnable]
        return {one[fact] for one in facts if where.items() <= one.items() and fact in one}

    for method in ("full", "lora", "bitfit", "prompt"):
        rates = sorted(float(str(rate)) for rate in values("learning_rate", "learning_rate", method=method))
        assert len(rates) == 7 and all(2.9 < high / low < 3.4 for low, high in pairwise(rates))
    assert values("data_size", "train_examples") == {2**power for power in range(5, 12)}
    assert values("rank_budget", "r") == {1, 4, 16, 64} and len(values("rank_budget", "train_examples")) == 3
    assert values("prefix_length", "num_virtual_tokens", method="prefix") == {1, 4, 16, 64}
    assert len(values("model_size", "model")) == 2


def test_decoders_that_train_are_asked_what_they_forget(plans: dict[str, Plan]) -> None:
    for name in ("alignment", "series/model_size"):
        assert all("retention" in row.trial.budget.probes for row in plans[name].runnable), name
    asked = {row.trial.task for row in plans["standard"].runnable if row.trial.budget.probes}
    assert asked == {"factual_summary"}


def test_ladders_of_the_hub_plan_as_the_header_writes_them() -> None:
    header = sweeps.find("series/model_size").read_text(encoding="utf-8")
    ladders = re.findall(r"--set '(models=\[[^]]+\])'", header)
    assert len(ladders) == 3
    for ladder in ladders:
        assert not expand.plan(sweeps.load("series/model_size", [ladder])).skipped
