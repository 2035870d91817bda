"""A notebook holds what is its own: little code, and none of the palette."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[2] / "notebooks"


def code(path: Path) -> list[str]:
    """The lines of code that are not empty, those of the parameters included."""
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    return [line for cell in cells for line in "".join(cell["source"]).split("\n") if line.strip()]


def notebooks(folder: str = "") -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)


def test_no_notebook_spells_a_colour() -> None:
    found = {path.name: re.findall(r"#[0-9A-Fa-f]{6}\b", path.read_text()) for path in notebooks()}
    assert {name: colours for name, colours in found.items() if colours} == {}


def test_the_median_notebook_of_a_method_is_short() -> None:
    assert median(len(code(path)) for path in notebooks("methods")) <= 60


def test_what_the_notebooks_of_methods_share_are_the_steps() -> None:
    """Load, apply, fit, evaluate, measure, record: beside the parameters, which a sweep sets by the same names."""
    texts = {}
    for path in notebooks("methods"):
        parameters = next(
            cell for cell in json.loads(path.read_text())["cells"] if "parameters" in cell["metadata"].get("tags", ())
        )
        declared = set("".join(parameters["source"]).split("\n"))
        texts[path.stem] = [line for line in code(path) if line not in declared]
    there = Counter(line for lines in texts.values() for line in set(lines))
    shared = {line for line, count in there.items() if count >= len(texts) / 2}
    too_much = {name: n for name, lines in texts.items() if (n := sum(line in shared for line in lines)) > 14}
    assert too_much == {}


def test_no_two_notebooks_plot_the_loss_with_the_same_line() -> None:
    """A history draws its own."""
    drawing = Counter(
        line for path in notebooks() for line in set(code(path)) if "plot(" in line and "history.losses" in line
    )
    assert [line for line, count in drawing.items() if count > 1] == []


@pytest.mark.slow
@pytest.mark.long
def test_bitdelta_by_hand_trains_the_fine_tune_that_it_compresses(tmp_path: Path) -> None:
    """And at every step what is shown shows itself."""
    import papermill

    budget = {"train_examples": 8, "batch_size": 4, "epochs": 1, "max_length": 96, "eval_examples": 4}
    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(
        ROOT / "methods" / "bitdelta.ipynb",
        out,
        parameters={"model": "tiny-llama", "budget": budget},
        kernel_name="python3",
        progress_bar=False,
    )
    said = "".join(
        text
        for cell in json.loads(out.read_text())["cells"]
        for output in cell.get("outputs", ())
        for text in (*output.get("text", ()), *output.get("data", {}).get("text/plain", ()))
    )
    for line in ("fine-tuned; loss ", " parameters train (", "\nrouge_l: ", "plain decode", "stored per task: "):
        assert line in said
