"""A results folder of a stranger: whatever lies in it, only notebooks of this installation run."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_models as tiny
from helpers.lengths import long_after

from harness import notebooks
from harness.errors import InputError
from harness.files import LOG_FILE, open_log
from harness.ledger.ledger import Ledger
from harness.runner.executors import process
from harness.runner.trial import run_trial
from harness.runner.warm import WarmParent
from harness.sweeps import expand as matrix
from harness.sweeps import spec as sweep
from harness.trial import Trial


@pytest.fixture
def trial_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a planned trial."""
    monkeypatch.setenv("TUNEBENCH_NOTEBOOKS", str(tmp_path / "notebooks"))
    path = tiny.bench(tmp_path)
    ledger = Ledger.create(tmp_path / "out", matrix.plan(sweep.load(path)), path.read_text())
    return ledger.trial_dir(ledger.plan.rows[0].trial_id)


@pytest.mark.parametrize(
    "name", ["/{outside}/methods/evil", "../evil", "methods/../../evil", "~/evil", "", "a\\b", "."]
)
def test_a_notebook_that_a_trial_brings_along_never_runs(tmp_path: Path, trial_dir: Path, name: str) -> None:
    name = name.format(outside=tmp_path)
    for file in (tmp_path / "methods" / "evil.ipynb", tmp_path / "evil.ipynb"):
        tiny.notebook(file, cells=(f"open({str(tmp_path / 'ran')!r}, 'w')",))
    document: dict[str, Any] = json.loads((trial_dir / "trial.json").read_text())
    document["row"]["trial"]["notebook"] = name
    trial = Trial.from_json(json.dumps(document["row"]["trial"]))
    document["row"]["trial_id"] = trial.trial_id
    theirs = trial_dir.with_name(trial.trial_id)
    theirs.mkdir()
    (theirs / "trial.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="not the name of a notebook below notebooks/, such as 'methods/lora'"):
        run_trial(theirs)
    with pytest.raises(InputError, match="not the name of a notebook"):
        notebooks.path(name)
    assert [path.name for path in theirs.iterdir()] == ["trial.json"]
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize("warm", long_after(1, [False, True]), ids=["cold", "warm"])
def test_python_in_the_folder_of_a_trial_is_not_imported_and_no_link_is_followed(
    tmp_path: Path, trial_dir: Path, monkeypatch: pytest.MonkeyPatch, warm: bool
) -> None:
    for name in ("harness", "json", "numpy", "nbformat", "ipykernel", "sitecustomize", "traitlets"):
        for folder in (trial_dir, tmp_path):
            (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\n")
    (tmp_path / "private").write_text("mine\n")
    (trial_dir / LOG_FILE).symlink_to(tmp_path / "private")
    monkeypatch.chdir(tmp_path)
    parent = WarmParent({}) if warm else None
    trial = partial(parent.trial, environment={}) if parent else process.start
    try:
        running = trial(trial_dir)
        while running.poll() is None:
            time.sleep(0.05)
    finally:
        if parent:
            parent.close()
    record = Ledger.open(tmp_path / "out").record(trial_dir.name)
    assert record is not None
    assert record.status == "ok", record.reason
    assert not (tmp_path / "ran").exists()
    assert (tmp_path / "private").read_text() == "mine\n"
    assert "acting ok" in (trial_dir / LOG_FILE).read_text()


def test_a_log_is_a_file_of_its_own(tmp_path: Path) -> None:
    log, other = tmp_path / LOG_FILE, tmp_path / "other"
    other.write_text("mine")
    for target in (other, tmp_path / "gone", None):
        log.unlink(missing_ok=True)
        os.mkfifo(log) if target is None else log.symlink_to(target)
        for text in ("one", "two"):
            with os.fdopen(open_log(log), "a") as stream:
                stream.write(text)
        assert log.read_text() == "onetwo"
    assert other.read_text() == "mine"
