"""The explorer's widgets, moved as a person moves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from helpers.fake_records import records

from harness.errors import InputError
from harness.report.explorer import Explorer, continue_by_hand
from harness.results import tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("s")
    tables.write(records(n_methods=4, seeds=2, rates=1, curve_steps=3, tasks=("factual_summary", "class_x")), place)
    return place


def points(explorer: Explorer) -> dict[str, Any]:
    return {point.tooltip: point for point in explorer.plot.children[1:]}


@pytest.mark.slow
def test_a_choice_changes_table_and_plot_together(folder: Path) -> None:
    explorer = Explorer(folder)
    assert len(points(explorer)) == 8
    explorer.tasks.value = ("class_x",)
    explorer.methods.value = ("full", "lora")
    assert set(points(explorer)) == {"full · class_x · smollm2-135m", "lora · class_x · smollm2-135m"}
    assert explorer.table.value.count("<tr>") == 3 and "qlora" not in explorer.table.value
    before = explorer.plot.children[0].value
    explorer.x.value = "peak memory (bytes)"
    assert explorer.plot.children[0].value != before
    # Full fine-tuning needs more memory, so it stands to the right of LoRA.
    place = {name.split(" ")[0]: float(point.layout.left.strip("%")) for name, point in points(explorer).items()}
    assert place["lora"] < place["full"] < 100
    explorer.methods.value = ()
    assert points(explorer) == {} and "choose more" in explorer.table.value and explorer.detail.children == ()


def test_rows_without_a_value_are_counted(folder: Path) -> None:
    explorer = Explorer(folder)
    explorer.y.value = "peak memory (bytes)"
    assert len(points(explorer)) == 6
    assert "Rows without trained parameters or peak memory (bytes): 2." in explorer.table.value


@pytest.mark.slow
def test_a_metric_of_the_scores_table_is_an_axis(folder: Path) -> None:
    explorer = Explorer(folder)
    explorer.y.value = "accuracy"
    assert len(points(explorer)) == 4


@pytest.mark.slow
def test_a_click_on_a_point_opens_its_trial(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    explorer = Explorer(folder, tmp_path / "by_hand")
    name = "lora · class_x · smollm2-135m"
    trial_id = explorer.rows.set_index("name").trial_ids[name][0]
    notebook = folder / "trials" / trial_id / "notebook.ipynb"
    notebook.parent.mkdir(parents=True)
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell("r = 8", metadata={"tags": ["injected-parameters"], "papermill": {}})]
    book.cells[0].outputs = [nbformat.v4.new_output("stream", text="x")]
    nbformat.write(book, notebook)
    points(explorer)[name].click()
    assert explorer.opened.value == trial_id
    title, curve, link, by_hand = explorer.detail.children
    assert trial_id in title.value and "lora says" in title.value and "<script>" not in title.value
    assert bytes(curve.value).startswith(b"\x89PNG") and "notebook.ipynb" in link.value
    button, said = by_hand.children
    button.click()
    copy = nbformat.read(tmp_path / "by_hand" / f"{trial_id}.ipynb", as_version=4)
    assert copy.cells[0].source == "r = 8" and copy.cells[0].outputs == []
    assert said.value.startswith(f'<a href="by_hand/{trial_id}.ipynb"')
    assert "tb-open" in points(explorer)[name]._dom_classes


def test_a_copy_that_is_there_stays_and_a_bad_place_is_said(tmp_path: Path) -> None:
    source = tmp_path / "a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), source)
    mine = tmp_path / "mine.ipynb"
    mine.write_text("mine", encoding="utf-8")
    continue_by_hand(source, mine)
    assert mine.read_text(encoding="utf-8") == "mine"
    with pytest.raises(InputError, match="cannot be written"):
        continue_by_hand(source, mine / "under.ipynb")


def test_nothing_to_explore_is_said(tmp_path: Path) -> None:
    tables.write(records(n_methods=1, endings={"baseline": "failed"}), tmp_path)
    with pytest.raises(InputError, match="nothing to explore"):
        Explorer(tmp_path)
