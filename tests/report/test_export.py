"""The comparison for papers, pages, model cards and MLflow: escaped, with intervals, and true on odd tables."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from helpers import command_line
from helpers.fake_records import records
from helpers.runs import METHODS, run
from huggingface_hub.repocard_data import model_index_to_eval_results
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.judgement.statistics import aggregate
from harness.report import export, mlflow
from harness.report.markup import latex, markdown
from harness.results import tables
from harness.results.schema import TABLES

EVIL = r"50% of $x_1$ & {a}\b ~ ^ #1 [z](u) | `c` <b> é"


def test_the_table_holds_what_was_aggregated() -> None:
    stored = run(1)
    (exhibit,) = export.exhibits(stored)
    rows = {row[0]: dict(zip(exhibit.heads, row, strict=True)) for row in exhibit.rows}
    assert list(rows) == list(METHODS)
    full = aggregate(stored).set_index("method").loc["full"]
    assert rows["full"]["Score"] == f"{full.test_score:.3f} [{full.ci_low:.3f}, {full.ci_high:.3f}]"
    assert rows["full"]["Group"] == "a" and rows["full"]["Seeds"] == "3" and rows["full"]["Stored"] == "1 MB"
    assert exhibit.note.startswith(
        "Score: accuracy on the test split, higher is better. 95 % intervals cover 3 seeds and"
    )
    # Nothing was measured of these.
    assert "Trained" not in exhibit.heads and "Training" not in exhibit.heads


def test_one_seed_and_lower_is_better_are_said() -> None:
    stored = run(1, METHODS[:2], seeds=1)
    stored["trials"]["higher_is_better"] = False
    (exhibit,) = export.exhibits(stored)
    assert "lower is better" in exhibit.note and "none is called better" in exhibit.note
    scores = [float(row[1].split()[0]) for row in exhibit.rows]
    assert scores == sorted(scores)


def balanced(text: str) -> bool:
    """Whether every brace of LaTeX that is not escaped is closed."""
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text.replace(r"\\", "")):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    return depth == 0


def test_latex_is_escaped_and_its_rows_have_every_column() -> None:
    stored = run(1)
    stored["trials"] = stored["trials"].assign(model=EVIL)
    said = export.in_latex(stored)
    assert balanced(said)
    assert not re.search(r"(?<!\\)[#$%_^~&](?![ a-z\\]|cdot)", said.split("\n", 1)[1].replace(" & ", " "))
    assert said.count(r"\begin{table}") == said.count(r"\end{table}") == said.count(r"\toprule") == 1
    (columns,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", said)
    lines = [line for line in said.splitlines() if line.endswith(r" \\")]
    assert len(lines) == 5 and {line.count(" & ") + 1 for line in lines} == {len(columns)}
    assert export._guarded(latex("[1]")) == "{[1]}"


@settings(max_examples=40)
@given(st.text(max_size=40))
def test_any_text_is_escaped(text: str) -> None:
    said = latex(text)
    assert balanced(said) and "\n" not in said
    shown = markdown(text)
    assert "\n" not in shown and not re.search(
        r"<|@|(?<!\\)(\\\\)*[`|]", shown.replace("&lt;", "").replace("&#64;", "")
    )


def test_markdown_has_a_table_per_task_and_model() -> None:
    stored = run(1)
    stored["trials"] = stored["trials"].assign(task=EVIL)
    said = export.in_markdown(stored)
    table = [line for line in said.splitlines() if line.startswith("|")]
    assert len(table) == 6 and len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert table[1].startswith("| --- | ---: | --- | ---: |")
    assert "<b>" not in said and "[z](u)" not in said


def test_the_hub_reads_the_model_card() -> None:
    stored = run(1)
    _, front, rest = export.in_model_card(stored).split("---\n")
    assert rest == ""
    index = yaml.safe_load(front)["model-index"]
    assert [entry["name"] for entry in index] == [f"m {method} on t" for method in METHODS]
    name, (result,) = model_index_to_eval_results([index[1]])
    row = aggregate(stored).set_index("method").loc["lora"]
    assert name == "m lora on t" and result.dataset_split == "test" and result.metric_type == "accuracy"
    assert result.metric_value == pytest.approx(row.test_score, abs=1e-6)
    assert result.metric_args is not None
    assert result.metric_args["ci_low"] == pytest.approx(row.ci_low, abs=1e-6)
    assert result.metric_args["seeds"] == 3


def test_rows_without_a_score_are_told_and_stand_in_no_card() -> None:
    stored = run(1, change={"test_score": None, "primary_metric": None})
    (exhibit,) = export.exhibits(stored)
    assert exhibit.rows[-1][:2] == ("lora", "")
    assert "m lora on t" not in export.in_model_card(stored)
    for rows, message in ((stored["trials"].head(0), "nothing to export"), (None, "nothing for a model card")):
        odd = stored | {"trials": stored["trials"].assign(test_score=np.nan) if rows is None else rows}
        with pytest.raises(InputError, match=message):
            (export.in_model_card if rows is None else export.in_latex)(odd)


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(st.integers(1, 4), st.integers(1, 2), st.floats(-1, 1), st.sampled_from(["accuracy", "perplexity", "own"]))
def test_every_form_takes_odd_tables(methods: int, seeds: int, shift: float, metric: str) -> None:
    stored = run(1, METHODS[:methods], seeds, 5, {"test_score": shift}, of="full")
    stored["trials"]["primary_metric"] = metric
    for form in (export.in_markdown, export.in_latex, export.in_model_card):
        assert "nan" not in form(stored).lower()


class FakeMlflow:
    """What :mod:`harness.report.mlflow` calls of MLflow."""

    class Refused(Exception):
        """What MLflow calls MlflowException."""

    exceptions = SimpleNamespace(MlflowException=Refused)

    def __init__(self, failure: Exception | None = None) -> None:
        self.runs: list[dict[str, Any]] = []
        self.failure = failure

    def set_experiment(self, name: str) -> SimpleNamespace:
        if self.failure is not None:
            raise self.failure
        return SimpleNamespace(experiment_id=name)

    def search_runs(self, experiments: list[str], output_format: str) -> list[SimpleNamespace]:
        assert output_format == "list" and experiments == ["fake"]
        return [SimpleNamespace(data=SimpleNamespace(tags=run["tags"])) for run in self.runs]

    def start_run(self, run_name: str) -> FakeMlflow:
        self.runs.append({"name": run_name, "tags": {}, "params": {}, "metrics": {}})
        return self

    def __enter__(self) -> FakeMlflow:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def set_tags(self, tags: dict[str, str]) -> None:
        self.runs[-1]["tags"] |= tags

    def log_params(self, params: dict[str, str]) -> None:
        assert all(isinstance(value, str) and len(value) <= 500 for value in params.values())
        self.runs[-1]["params"] |= params

    def log_metrics(self, metrics: dict[str, float], step: int = 0) -> None:
        assert all(np.isfinite(value) for value in metrics.values())
        self.runs[-1]["metrics"] |= {(name, step): value for name, value in metrics.items()}


def test_mlflow_gets_each_trial_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = {name: table.to_pandas() for name, table in tables.build(records(2, 1, rates=1, curve_steps=2)).items()}
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    assert mlflow.log(stored) == (2, 0)
    assert mlflow.log(stored) == (0, 2)
    base, full = fake.runs
    assert base["params"]["method"] == "baseline" and "learning_rate" not in base["params"]
    row = stored["trials"].set_index("method").loc["full"]
    assert full["metrics"]["test_score", 0] == row.test_score
    assert full["tags"] == {"tunebench.trial_id": row.trial_id, "status": "ok"}
    assert ("train.loss", 1) in full["metrics"] and ("train.loss", 2) in full["metrics"]
    assert set(stored) == set(TABLES)


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (
            FakeMlflow.Refused("The file store is in maintenance mode.\nSee the manual."),
            "error: --to mlflow: The file store is in maintenance mode.; set MLFLOW_TRACKING_URI, such as",
        ),
        (
            ModuleNotFoundError("No module named 'alembic'"),
            "error: --to mlflow: No module named 'alembic'; pip install",
        ),
    ],
)
def test_what_mlflow_refuses_is_one_line(
    failure: Exception,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables.write(records(1, 1, rates=1, curve_steps=2), tmp_path)
    monkeypatch.setitem(sys.modules, "mlflow", FakeMlflow(failure))
    code, out, err = command_line.run(monkeypatch, capsys, "export", str(tmp_path), "--to", "mlflow")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(says)


def test_the_command_prints_or_says_in_one_line_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables_dir = tmp_path / "s"
    tables_dir.mkdir()
    tables.write(records(2, 1, rates=1, curve_steps=2), tables_dir)
    for form, beginning in (("latex", "% "), ("markdown", "### factual"), ("model-card", "---\ntags:")):
        code, out, err = command_line.run(monkeypatch, capsys, "export", str(tables_dir), "--to", form)
        assert (code, err) == (0, "") and out.startswith(beginning)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    for form, message in (("mlflow", "pip install 'tunebench[mlflow]'"), ("latx", "did you mean 'latex'?")):
        code, out, err = command_line.run(monkeypatch, capsys, "export", str(tables_dir), "--to", form)
        assert (code, out) == (2, "") and message in err and err.count("\n") == 1
