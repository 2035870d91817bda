"""Who may write into the results: the process that runs the trial, told by its environment, and nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.files import OUTCOME_FILE
from harness.results.ownership import VARIABLE, own
from harness.results.record import write_outcome


def test_only_the_own_trial_and_its_own_artefact_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, other = tmp_path / "results" / "quick", tmp_path / "copy" / "quick"
    monkeypatch.setenv(VARIABLE, str(sweep / "trials" / "a1"))
    for folder in (sweep / "trials" / "a1", sweep / "artifacts" / "a1"):
        assert own(str(folder)) == folder
    for folder in (sweep / "trials" / "b2", sweep / "artifacts" / "b2", other / "trials" / "a1", other / "trials"):
        expected = folder if folder.name == "trials" else None
        assert own(folder) == expected
    assert own(None) is None


def test_without_a_trial_results_are_not_written_but_any_other_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert own(tmp_path / "quick" / "trials" / "a1") is None
    assert own(tmp_path / "quick" / "artifacts" / "a1") is None
    assert own(tmp_path / "mine") == tmp_path / "mine"
    monkeypatch.chdir(tmp_path)
    assert own("mine") == tmp_path / "mine"
    assert own("trials/a1") is None


def test_an_outcome_is_written_by_its_trial_and_a_person_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "trials" / "a1"
    folder.mkdir(parents=True)
    monkeypatch.delenv(VARIABLE, raising=False)
    by_hand = write_outcome(folder, {"valid_score": 0.5}, {})
    assert list(folder.iterdir()) == [] and by_hand.columns == {"valid_score": 0.5}
    assert capsys.readouterr().out == f"run by hand: {folder} stays as it was recorded\n"
    write_outcome(None, {"valid_score": 0.5}, {})
    monkeypatch.setenv(VARIABLE, str(folder))
    write_outcome(folder, {"valid_score": 0.5}, {})
    assert [path.name for path in folder.iterdir()] == [OUTCOME_FILE]
    assert capsys.readouterr().out == ""
