"""``tunebench figures`` and ``list figures``: files, reasons, and one line for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.command_line import run
from helpers.fake_records import make_sweep

from harness.figures import DESCRIPTIONS


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    make_sweep(folder, n_methods=2, seeds=1, rates=1, curve_steps=4)
    return folder


def test_a_figure_becomes_a_file_and_what_has_nothing_to_show_says_why(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("--only", "score_by_method", "--only", "learning_rates", "--only", "estimated_memory")
    code, out, err = run(monkeypatch, capsys, "figures", str(sweep), *names, "--out", str(tmp_path), "--format", "svg")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{tmp_path / 'score_by_method.svg'}",
        "learning_rates: left out because one learning rate was tried for each method",
        "estimated_memory: left out because no trial has both an estimated and a measured peak of training",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["score_by_method.svg"]
    assert "<svg" in (tmp_path / "score_by_method.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "score_by_metod"), "--only: unknown name 'score_by_metod'; did you mean 'score_by_method'?"),
        (("--format", "gif"), "'gif'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: tuple[str, str], said: str, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    code, out, err = run(monkeypatch, capsys, "figures", str(sweep), *arguments, "--out", str(tmp_path / "new"))
    assert (code, out) == (2, "")
    assert said in err and err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_folder_without_tables_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(monkeypatch, capsys, "figures", str(tmp_path))
    assert code == 2
    assert "no tables here" in err and err.count("\n") == 1


def test_the_list_names_every_figure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(monkeypatch, capsys, "list", "figures", "--json")
    assert code == 0
    assert {row["name"]: row["description"] for row in json.loads(out)} == DESCRIPTIONS
