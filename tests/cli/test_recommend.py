"""``tunebench recommend`` as a user sees it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import command_line
from helpers.command_line import Call
from helpers.fake_records import make_sweep
from helpers.scored_tables import Cell, scored

from harness.cli import recommending
from harness.ledger.records import read_records
from harness.results import tables

WANTED = ("--model", "smollm2-135m", "--task", "factual_summary")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "results" / "one"
    make_sweep(folder, n_methods=5, rates=1, curve_steps=2, generations=1)
    tables.write(read_records(folder), folder)
    return folder


@pytest.fixture
def call(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(results.parent.parent)
    return partial(command_line.run, monkeypatch, capsys)


def test_it_says_what_it_rests_on_what_does_not_fit_and_what_cannot_be_told(call: Call, results: Path) -> None:
    code, out, _ = call("recommend", *WANTED, "--memory", "1.6GB")
    assert code == 0
    assert out.startswith("for score, smollm2-135m on factual_summary within 1.6 GB: qlora")
    assert "rests on 5 rows of smollm2-135m on factual_summary, 3 seeds, rouge_l, from results/one" in out
    assert "memory is measured on cpu" in out and "does not fit in 1.6 GB: full" in out
    assert "cannot be told from qlora in score: lora, bitfit" in out and "extrapolates" not in out
    code, out, _ = call("recommend", str(results), *WANTED, "--goal", "size", "--json")
    document = json.loads(out)
    assert (code, document["recommended"], document["basis"]["extrapolates"]) == (0, "qlora", False)
    assert document["not_told_apart"] == ["lora"], "both store the same bytes"
    assert document["not_good_enough"] == ["bitfit"] and document["better_than_untrained"] is True


def test_what_answers_the_same_is_as_good_and_not_merely_untold(
    call: Call, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = np.ones((3, 400))
    some = np.where(np.arange(400) < 398, right, 0.0)
    given = scored(Cell("lora", right), Cell("full", right), Cell("bitfit", some), Cell("baseline", right * 0))
    given["trials"] = given["trials"].assign(model=WANTED[1], task=WANTED[3], task_kind="generation")
    monkeypatch.setattr(recommending, "read", lambda _: given)
    code, out, _ = call("recommend", str(results), *WANTED)
    assert code == 0
    assert "as good as lora in score, within the margin: full\n" in out
    assert "cannot be told from lora in score: bitfit\n" in out


def test_it_reads_folders_at_any_depth_and_names_what_has_no_score(
    call: Call, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "results" / "cpu" / "two"
    make_sweep(folder, n_methods=5, rates=1, curve_steps=2, generations=1, endings={"lora": "oom"})
    tables.write(read_records(folder), folder)
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("recommend", *WANTED)
    assert code == 0 and "from results/cpu/two" in out
    assert "without a score, so not compared: lora (oom)" in out


@pytest.mark.slow
def test_a_model_without_rows_is_estimated_and_the_step_is_said(call: Call) -> None:
    code, out, _ = call("recommend", "--model", "llama-7b", "--task", "factual_summary", "--memory", "80GB", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["basis"]["memory"] == "estimated" and document["basis"]["extrapolates"] is True
    assert document["does_not_fit"] == ["full"] and document["recommended"] == "qlora"
    said = " ".join(document["remarks"])
    assert "scores and costs are those of smollm2-135m, the nearest in size (135 million parameters against 6," in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "smollm2-135m", "--task", "trec"), "no scored row of a trained decoder on trec or another classi"),
        (("--model", "smol", "--task", "factual_summary"), "model: unknown name 'smol'"),
        (("--model", "smollm2-135m", "--task", "factual"), "task: unknown name 'factual'; did you mean 'factual_summ"),
        ((*WANTED, "--goal", "sizes"), "--goal: unknown name 'sizes'; did you mean 'size'?"),
        ((*WANTED, "--memory", "24"), "--memory: '24' is not a size"),
        (("nowhere", *WANTED), "nowhere: no tables here"),
    ],
)
def test_bad_input_is_one_line(call: Call, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = call("recommend", *arguments)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_without_results_it_says_how_to_get_some(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("recommend", *WANTED)[::2] == (
        2,
        "error: results: no folder with tables here; name one, or run a sweep with 'tunebench run quick'\n",
    )
