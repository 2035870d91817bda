"""An executed notebook that a person runs again, in place, from a copy or after a move: the results do not change."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest
from helpers import tiny_models as tiny

from harness.errors import InputError
from harness.ledger.ledger import Ledger
from harness.runner.executors import process
from harness.sweeps import expand as matrix
from harness.sweeps import spec as sweep

pytestmark = pytest.mark.slow

#: What a trial does with its folders, without torch: a checkpoint, a parent's checkpoint, an outcome.
CELLS = (
    "from harness.results.ownership import own\nfrom harness.results.record import write_outcome\n"
    "if place := own(artifact_dir):\n    place.mkdir(parents=True)\n    (place / 'weights').write_text('1')",
    "act = 'ok'\n" + tiny.OUTCOME,
)


def tree(folder: Path) -> dict[str, str]:
    """Every folder, and every file with a hash of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Results with one trial that has ended well and has kept its artefact."""
    settings = sweep.load(tiny.bench(tmp_path, keep_artifacts=True))
    tiny.notebook(tmp_path / "notebooks" / "methods" / "full.ipynb", tiny.PARAMETERS + "\nartifact_dir = None", CELLS)
    monkeypatch.setenv("TUNEBENCH_NOTEBOOKS", str(tmp_path / "notebooks"))
    ledger = Ledger.create(tmp_path / "results" / "tiny", matrix.plan(settings), settings.to_yaml())
    (row,) = ledger.plan.rows
    assert process.start(ledger.trial_dir(row.trial_id)).wait() == 0
    assert (ledger.artifact_dir(row.trial_id) / "weights").exists(), "the trial itself may write there"
    return ledger


def run_again(notebook: Path) -> str:
    """Execute it as a person does, in its folder; what it printed."""
    book = nbformat.read(notebook, 4)
    place = {"metadata": {"path": str(notebook.parent)}}
    nbclient.NotebookClient(book, kernel_name="python3", resources=place, timeout=120).execute()
    return "".join(output.text for cell in book.cells for output in cell.get("outputs", ()) if "text" in output)


def test_a_mistake_is_one_line_in_a_notebook() -> None:
    """IPython asks an exception how to show itself."""
    assert InputError("task: unknown name 'trek'")._render_traceback_() == ["InputError: task: unknown name 'trek'"]


def test_a_notebook_that_is_run_again_changes_no_results(ledger: Ledger, tmp_path: Path) -> None:
    results = tmp_path / "results"
    (row,) = ledger.plan.rows
    notebook = ledger.trial_dir(row.trial_id) / "notebook.ipynb"
    before = tree(results)
    said = f"run by hand: {notebook.parent} stays as it was recorded\n"
    assert run_again(notebook) == said
    assert tree(results) == before
    shutil.copytree(results, tmp_path / "copy")
    assert run_again(tmp_path / "copy" / notebook.relative_to(results)) == said
    assert tree(results) == before == tree(tmp_path / "copy")
    results.rename(tmp_path / "moved")
    assert run_again(tmp_path / "moved" / notebook.relative_to(results)) == said
    assert tree(tmp_path / "moved") == before and not results.exists()
