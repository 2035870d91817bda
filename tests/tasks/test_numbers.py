"""Tasks whose answer is a number: metrics of numbers, the task's YAML and rows, and how answers are scored."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import command_line, own_tasks
from helpers import toy_tasks as toy
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from harness import methods
from harness.errors import InputError
from harness.tasks import evaluate as evaluation
from harness.tasks.data import load
from harness.tasks.evaluate import evaluate, majority_score
from harness.tasks.metrics import METRICS, score
from harness.tasks.metrics.numbers import number
from harness.tasks.metrics.scoring import Score, scored
from harness.tasks.scale import Scale
from harness.tasks.spec import TaskSpec, load_spec

REGRESSION: dict[str, Any] = {
    "kind": "regression",
    "prompt": "Rate: {body}",
    "text": "{body}",
    "label": "stars",
    "splits": own_tasks.SPLITS,
}
SMALL = st.integers(-3, 3)  # few numbers, many ties
PAIRS = st.lists(st.tuples(SMALL, SMALL), min_size=2, max_size=12)


def of_numbers(name: str, said: list[Any], right: list[Any]) -> Score:
    return scored(name, METRICS[name].statistics([str(x) for x in said], [(str(x),) for x in right]), None)


# --- metrics ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(PAIRS)
def test_correlations_are_those_of_scipy(pairs: list[tuple[int, int]]) -> None:
    said, right = map(list, zip(*pairs, strict=True))
    assume(len(set(said)) > 1 and len(set(right)) > 1)
    for name, library in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        of_all = METRICS[name].statistics([str(x) for x in said], [(str(x),) for x in right])
        assert of_all.at(np.ones(len(pairs))) == pytest.approx(library(said, right).statistic, abs=1e-9)


def test_published_correlations() -> None:
    """Anscombe 1973, table 1, first pair of columns; hours and IQ of Wikipedia's article on Spearman's coefficient."""
    x = [10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
    y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]
    assert score("pearson", x, y).value == pytest.approx(0.816, abs=5e-4)
    iq, hours = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110], [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
    assert score("spearman", iq, hours).value == pytest.approx(-29 / 165)
    assert score("mse", [1, 2, 4], [1, 3, 2]).value == pytest.approx(5 / 3)


def test_the_error_of_ranks_counts_the_ranks_of_each_resample() -> None:
    """Fisher's sqrt((1 + r^2 / 2) / (n - 3)) (1 - r^2) for ranks (Bonett & Wright 2000), on numbers without ties."""
    random = torch.Generator().manual_seed(0)
    right = torch.randn(300, generator=random)
    said = right + 0.7 * torch.randn(300, generator=random)
    found = of_numbers("spearman", said.tolist(), right.tolist())
    assert found.value is not None
    expected = (1 - found.value**2) * ((1 + found.value**2 / 2) / 297) ** 0.5
    assert found.stderr == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(
    ("said", "right", "reason"),
    [
        (["2", "2", "2"], [1, 2, 3], "all predictions are equal, so nothing varies with them"),
        (["1", "2", "3"], [2, 2, 2], "all references are equal, so nothing varies with them"),
        (["1"], [2], "one example has no correlation"),
        (["no", ""], [1, 2], "no answer holds a number"),
    ],
)
def test_where_nothing_varies_there_is_a_reason_and_no_correlation(
    said: list[str], right: list[int], reason: str
) -> None:
    for name in ("pearson", "spearman"):
        found = of_numbers(name, said, right)
        assert (found.value, found.stderr, found.reason, list(found.values)) == (None, None, reason, [])
    assert of_numbers("numeric_answers", said, right).value == (0.0 if "no" in said else 1.0)


def test_an_answer_without_a_number_counts_as_the_mean_of_the_others() -> None:
    said, right = ["1", "perhaps", "4 stars"], [1.0, 2.0, 3.0]
    assert of_numbers("mse", said, right).value == pytest.approx((0 + 0.5**2 + 1) / 3)
    assert of_numbers("pearson", said, right).value == of_numbers("pearson", [1, 2.5, 4], right).value
    assert of_numbers("numeric_answers", said, right).value == pytest.approx(2 / 3)
    assert of_numbers("mse", ["none"], [1.0]).reason == "no answer holds a number"


@pytest.mark.parametrize(
    ("text", "value"),
    [("3.8", 3.8), ("about -2, I think", -2.0), ("5.", 5.0), (".5", 0.5), ("1e3", 1000.0), ("4,5", 4.0)]
    + [(text, None) for text in ("", "none", "inf", "nan", "9e999", "-")],
)
def test_the_number_of_an_answer(text: str, value: float | None) -> None:
    assert number(text) == value


# --- the task --------------------------------------------------------------------------------------------------------


def test_a_file_with_a_column_of_numbers_is_a_task(tmp_path: Path) -> None:
    rows = "body,stars\n" + "".join(f"text {i},{i / 4}\n" for i in range(8))
    task = load(own_tasks.task(tmp_path, "rows.csv", rows, REGRESSION, step=0.5))
    assert task.spec.metrics == ("pearson", "spearman", "mse", "numeric_answers") and task.spec.higher_is_better
    examples = sorted((*task.train, *task.validation, *task.test), key=lambda e: e.prompt)
    assert [e.target for e in examples] == [i / 4 for i in range(8)]
    assert [e.completion for e in examples] == ["0", "0", "0.5", "1", "1", "1", "1.5", "2"], "halves, to the even one"
    assert {(e.label, e.candidates) for e in examples} == {(None, ())}
    assert (task.head_words, task.label_words) == (("number",), ())
    targets = [e.target or 0.0 for e in task.train]
    assert task.scale == Scale(statistics.fmean(targets), statistics.pstdev(targets))


def test_no_number_is_minus_zero() -> None:
    spec = load_spec("film_sentiment")
    assert [spec.number_text(x) for x in (-0.01, 0.0, -0.11, 1.4117, -4.0)] == ["0", "0", "-0.2", "1.4", "-4"]


def test_the_text_of_a_number_without_a_step_is_that_of_the_data(tmp_path: Path) -> None:
    rows = [{"body": f"text {i}", "stars": value} for i, value in enumerate((3, 2.25, "1e3", -1234567, 0.1, 7))]
    task = load(own_tasks.task(tmp_path, "rows.jsonl", own_tasks.jsonl(rows), REGRESSION))
    examples = sorted((*task.train, *task.validation, *task.test), key=lambda e: e.prompt)
    assert [e.completion for e in examples] == ["3", "2.25", "1000", "-1234567", "0.1", "7"]


@pytest.mark.parametrize("cell", ["many", "nan", "inf", "1_000", "3;5"])
def test_what_is_no_number_is_refused_with_its_line(tmp_path: Path, cell: str) -> None:
    rows = "body,stars\n" + "".join(f"text {i},{cell if i == 3 else i}\n" for i in range(8))
    path = own_tasks.task(tmp_path, "rows.csv", rows, REGRESSION, reader={"missing": []})
    told = f"rows.csv: line 5: field 'stars': '{cell}' is no number; valid: digits with a point, such as 3.5"
    assert told in own_tasks.refused(path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"label": None}, "a regression task needs 'label': the field with the number"),
        ({"prompt": "{body} {stars}"}, "prompt: it gives the label away"),
        ({"text": "{body} {number}"}, "text: it gives the label away"),
        ({"completion": "{body}"}, "completion: it must hold {number}, the right number"),
        ({"labels": {"1": "one", "2": "two"}}, "labels: belongs to kind 'classification', not 'regression'"),
        ({"positive": "1"}, "positive: belongs to kind 'classification', not 'regression'"),
        ({"metrics": ["accuracy"]}, "metrics: 'accuracy' does not rate a regression task"),
        ({"step": 0}, "step"),
        ({"answer_pattern": "(x)"}, "answer_pattern: a regression task has no free answers"),
    ],
)
def test_parts_that_do_not_go_together(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    path = own_tasks.task(tmp_path, "rows.csv", "body,stars\na,1\n", REGRESSION, **changes)
    assert told in own_tasks.refused(path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"step": 1.0}, "step: belongs to kind 'regression', not 'classification'"),
        ({"metrics": ["f1"], "positive": "sales"}, "positive: unknown name 'sales'"),
        (
            {"metrics": ["f1"], "labels": {"a": "x", "b": "y", "c": "z"}},
            "metrics: 'f1' is about one label; name it in 'positive', or rate all with 'macro_f1'",
        ),
    ],
)
def test_parts_that_do_not_go_with_labels(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    path = own_tasks.task(tmp_path, "rows.csv", "body,team\na,tech\n", own_tasks.CLASSES, **changes)
    assert told in own_tasks.refused(path)


def test_f1_is_about_the_positive_label_of_the_task() -> None:
    spec = TaskSpec.model_validate(
        {**own_tasks.CLASSES, "name": "t", "source": {"local": "x"}, "metrics": ("f1",)}, strict=False
    )
    assert spec.metric_options == {"positive": "technical"}, "by default the last one"
    assert replace_field(spec, positive="billing").metric_options == {"positive": "billing"}
    assert load_spec("mrpc").metric_options == {"positive": "yes"}
    assert load_spec("stsb").metric_options == {}


def replace_field(spec: TaskSpec, **changes: Any) -> TaskSpec:
    return spec.model_copy(update=changes)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), st.floats(-1e6, 1e6))
def test_a_scale_gives_back_the_number(targets: list[float], target: float) -> None:
    scale = Scale.of(targets)
    assert scale.original(scale.standard(target)) == pytest.approx(target, rel=1e-6, abs=1e-6 * scale.deviation + 1e-9)
    assert Scale.of([2.0, 2.0]) == Scale(2.0, 1.0)


# --- evaluation ------------------------------------------------------------------------------------------------------

TASK: dict[str, Any] = {"label": "l", "completion": "{number}", "metrics": ["mse", "pearson", "numeric_answers"]}
EXAMPLES = [replace(toy.example(f"{n}:", str(n)), target=float(n)) for n in (1, 2, 6)]


def test_a_decoders_answers_are_read_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "generate", lambda *_: ["1", "I cannot say", "it is 5 or 6"])
    found = evaluate(methods.apply("baseline", toy.base()), toy.data("regression", EXAMPLES, **TASK), "test", 60)
    by_name = {one.metric: one.value for one in found.scores}
    assert by_name == {"mse": pytest.approx((0 + 1 + 1) / 3), "pearson": pytest.approx(10 / math.sqrt(8 * 14))} | {
        "numeric_answers": pytest.approx(2 / 3)
    }
    assert [a.output for a in found.answers] == ["1", "I cannot say", "it is 5 or 6"]
    assert len(found.primary.values) == 3


def test_a_heads_output_is_in_standard_deviations_from_the_training_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy.data("regression", EXAMPLES, **TASK)
    assert data.scale == Scale(3.0, statistics.pstdev([1, 2, 6]))
    outputs = torch.tensor([[data.scale.standard(x)] for x in (1.0, 3.0, 6.0)])
    monkeypatch.setattr(evaluation, "head_outputs", lambda *_: outputs)
    tuned = methods.apply("baseline", toy.base())
    object.__setattr__(tuned, "base", toy.base(scalar=True))
    found = evaluate(tuned, data, "test", 60)
    assert [float(a.output) for a in found.answers] == pytest.approx([1.0, 3.0, 6.0], abs=1e-6)
    assert found.primary.value == pytest.approx(1 / 3, abs=1e-6)


def test_what_a_constant_gets() -> None:
    task = toy.data("regression", EXAMPLES[:2], EXAMPLES, **TASK)
    assert majority_score(task) == pytest.approx(statistics.pvariance([1, 2, 6]))
    of_correlation = {**TASK, "metrics": ["pearson"]}
    assert majority_score(toy.data("regression", EXAMPLES, **of_correlation)) is None


# --- the command line ------------------------------------------------------------------------------------------------


def test_show_tells_where_the_numbers_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "body,stars\n" + "".join(f"text {i},{i % 5}\n" for i in range(20))
    path = own_tasks.task(tmp_path, "rows.csv", rows, REGRESSION)
    code, out, _ = command_line.run(monkeypatch, capsys, "show", path, "--json")
    assert code == 0
    shown = json.loads(out)
    assert shown["numbers"]["train"]["least"] == 0.0 and shown["numbers"]["test"]["mean"] >= 0
    code, out, _ = command_line.run(monkeypatch, capsys, "show", path)
    assert code == 0 and "numbers" in out and "mean" in out


def test_a_mistake_in_the_numbers_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = own_tasks.task(tmp_path, "rows.csv", "body,stars\na,1\nb,x\n", REGRESSION)
    code, _, err = command_line.run(monkeypatch, capsys, "show", path)
    assert code == 2 and err.count("\n") == 1 and "line 3: field 'stars': 'x' is no number" in err
    with pytest.raises(InputError):
        load(path)
