"""The page of tasks says what the table of zero-shot scores holds, and a measurement adds what that lacks."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from harness.errors import InputError
from harness.tasks.spec import load_spec, names

ROOT = Path(__file__).parents[2]


@pytest.fixture
def zero_shot(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    sys.modules.pop("zero_shot", None)
    import zero_shot as module

    return module


def columns_of_page() -> dict[str, dict[str, str]]:
    lines = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8").splitlines()
    header = next(line.strip("| ").split(" | ") for line in lines if line.startswith("|"))
    rows = [re.split(r" \| ?", line[2:].removesuffix(" |")) for line in lines if line.startswith("| `")]
    return {row[0].strip("`"): dict(zip(header, row, strict=True)) for row in rows}


def test_the_page_says_what_the_table_holds(zero_shot: ModuleType) -> None:
    table, page = zero_shot.read(), columns_of_page()
    assert tuple(page) == tuple(names())
    shown = {(name, model): row[f"`{model}`"] for name, row in page.items() for model in zero_shot.MODELS}
    assert {key: score for key, score in shown.items() if score} == {key: str(row) for key, row in table.items()}
    tasks = {task for task, _ in table}
    assert f"; {len(tasks)} tasks have\nscores." in (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")


def test_every_row_is_of_the_present_task_metric_and_budget(zero_shot: ModuleType) -> None:
    for (name, model), row in zero_shot.read().items():
        spec = load_spec(name)
        assert (row.task_version, row.metric) == (spec.full_version(), spec.primary_metric), name
        assert row.max_length == str(zero_shot.BUDGET.max_length)
        assert 0 < int(row.examples) <= zero_shot.BUDGET.eval_examples
        assert row.model_revision == revision_of(model)


def revision_of(name: str) -> str | None:
    from harness.models.spec import load_spec as model

    return model(name).revision()


def made_up(
    module: ModuleType, task: str, score: str = "0.5", stderr: str = "0.01", model: str = "smollm2-135m"
) -> object:
    return module.ZeroShot(task, load_spec(task).full_version(), model, "r", "accuracy", "60", "384", score, stderr)


@pytest.mark.parametrize(
    ("score", "stderr", "cell"),
    [("0.5", "0.0125", "0.500 ± 0.013"), ("23.456", "1.25", "23.5 ± 1.2"), ("-0.02", "", "-0.020"),
     ("", "", "no value")],
)  # fmt: skip
def test_a_score_as_a_cell(zero_shot: ModuleType, score: str, stderr: str, cell: str) -> None:
    assert str(made_up(zero_shot, "trec", score, stderr)) == cell


def test_a_measurement_adds_what_the_table_lacks_and_what_fails_keeps_the_rest(
    zero_shot: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "t.csv"
    assert zero_shot.read(table) == {}
    known, older = made_up(zero_shot, "trec"), made_up(zero_shot, "piqa", "0.1")
    object.__setattr__(older, "task_version", "0")
    zero_shot.write([known, older], table)
    assert zero_shot.read(table) == {("trec", "smollm2-135m"): known, ("piqa", "smollm2-135m"): older}
    here = ("arc_easy", "piqa", "trec", "xsum")
    monkeypatch.setattr(zero_shot.check, "is_here", lambda spec: spec.name in here)
    monkeypatch.setattr(zero_shot, "MODELS", ("minilm-l6-22m", "smollm2-135m"))

    def measured(task: str, model: str) -> object:
        if task == "arc_easy":
            raise InputError("arc_easy: is damaged")
        if task == "xsum":
            raise KeyboardInterrupt
        return made_up(zero_shot, task, "0.7", model=model)

    monkeypatch.setattr(zero_shot, "measured", measured)
    with pytest.raises(KeyboardInterrupt):
        zero_shot.measure(table)
    assert {key: row.score for key, row in zero_shot.read(table).items()} == {
        ("trec", "smollm2-135m"): "0.5",
        ("piqa", "smollm2-135m"): "0.7",
        ("trec", "minilm-l6-22m"): "0.7",  # of these four, an encoder classifies alone
    }
    told = capsys.readouterr()
    assert told.err == "arc_easy, smollm2-135m: arc_easy: is damaged\n"
    assert "piqa, smollm2-135m: accuracy 0.700 ± 0.010" in told.out
