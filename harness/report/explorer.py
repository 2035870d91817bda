"""The tables of a sweep to look around in, in a notebook: choose rows and axes, and open what a point stands for.

Every point of the plot is a button: a click opens its trial, with its answers, its curves, its executed notebook, and a
fresh copy of that notebook to continue by hand.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import nbformat
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.errors import InputError
from harness.figures.panels import FACET, rows
from harness.figures.style import bytes_text, count_text, look, score_text, seconds_text, style
from harness.files import NOTEBOOK_FILE, TRIALS_DIR, create_atomically
from harness.judgement.labels import labelled
from harness.judgement.statistics import aggregate
from harness.report.html import escape, number, scroll, table, text_cell
from harness.results.files import Tables, where
from harness.results.tables import find, read

#: What an axis may show: what it is called -> the column, and whether it is drawn as a logarithm.
COSTS = {
    "trained parameters": ("trainable_params", True),
    "peak memory (bytes)": ("peak_train_bytes", False),
    "training time (s)": ("chain_train_s", False),
    "checkpoint (bytes)": ("checkpoint_bytes", True),
    "step (s)": ("train_step_s_median", False),
    "latency of a prompt (s)": ("prefill_s_p50", False),
    "latency of a token (s)": ("decode_s_per_token_p50", False),
    "learning rate": ("learning_rate", True),
}
SCORE = "test score"

_SIZE = (9.0, 4.6)
"""Inches of the plot; the points stand at shares of it."""

_CSS = """<style>
.tb-plot { position: relative; width: 100%; max-width: 900px; overflow: visible; }
.tb-plot img { width: 100%; max-width: 900px; margin: 0; }
.tb-plot .tb-point { position: absolute; width: 22px; height: 22px; min-width: 0; margin: -11px 0 0 -11px; padding: 0;
  border-radius: 50%; box-sizing: border-box; background: transparent; border: 2px solid transparent; cursor: pointer; }
.tb-plot .tb-point:hover, .tb-plot .tb-point:focus, .tb-plot .tb-open { border-color: currentColor; }
.tb-detail table { border-collapse: collapse; } .tb-detail td, .tb-detail th { padding: 2px 10px 2px 0; }
.tb-detail td.text { white-space: pre-wrap; } .tb-detail td, .tb-detail th { text-align: left; vertical-align: top; }
</style>"""


class Explorer:
    """The widgets over the folder of a sweep: ``view`` holds them all."""

    def __init__(self, sweep_dir: str | Path, by_hand: str | Path = "by_hand") -> None:
        """``by_hand`` is the folder for copies of notebooks. Raises :class:`InputError` where there are no tables."""
        self.folder = find(Path(sweep_dir)).resolve().parent
        self.tables: Tables = read(Path(sweep_dir))
        self.by_hand = Path(by_hand)
        chosen = aggregate(self.tables)
        if chosen.empty:
            raise InputError(f"{sweep_dir}: no trial ended well, so there is nothing to explore")
        self.rows, scores = _with_metrics(_named(chosen), self.tables)
        self._axes = {SCORE: ("test_score", False), **scores, **COSTS}
        self.models, self.tasks, self.methods = (_several(self.rows, name) for name in ("model", "task", "method"))
        self.x = widgets.Dropdown(options=list(self._axes), value="trained parameters", description="x")
        self.y = widgets.Dropdown(options=list(self._axes), value=SCORE, description="y")
        self.opened = widgets.Dropdown(description="open")
        self.plot = widgets.Box().add_class("tb-plot")
        self.table = widgets.HTML().add_class("tb-detail")
        self.detail = widgets.VBox().add_class("tb-detail")
        for control in (self.models, self.tasks, self.methods, self.x, self.y):
            control.observe(self._changed, "value")
        self.opened.observe(self._opened, "value")
        choices = widgets.HBox([self.models, self.tasks, self.methods], layout={"flex_flow": "row wrap"})
        axes = widgets.HBox([self.x, self.y, self.opened], layout={"flex_flow": "row wrap"})
        parts = [widgets.HTML(_CSS), choices, axes, self.plot, self.table, self.detail]
        self.view = widgets.VBox(parts)
        self._changed()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.view)  # type: ignore[no-untyped-call]

    @property
    def shown(self) -> pd.DataFrame:
        """The rows that the choices leave."""
        chosen = self.rows
        for name, control in (("model", self.models), ("task", self.tasks), ("method", self.methods)):
            chosen = chosen[chosen[name].isin(control.value)]
        return chosen

    def _changed(self, _: object = None) -> None:
        """Draw again; the first row is open where the one that was is gone."""
        shown = self.shown
        options = [(row.name, row.trial_ids[0]) for row in rows(shown)]
        before = self.opened.value
        self.opened.options = options
        if before in {value for _, value in options}:
            self.opened.value = before
        self._draw()

    def _opened(self, _: object = None) -> None:
        self._draw()

    def _draw(self) -> None:
        shown = self.shown
        (x, x_log), (y, y_log) = self._axes[self.x.value], self._axes[self.y.value]
        known = shown[shown[x].notna() & shown[y].notna()]
        picture, places = _plot(known, (x, self.x.value, x_log), (y, self.y.value, y_log))
        points = [self._point(row, *place) for row, place in zip(rows(known), places, strict=True)]
        self.plot.children = (widgets.Image(value=picture, format="png"), *points)
        missing = len(shown) - len(known)
        said = f"<p>Rows without {escape(self.x.value)} or {escape(self.y.value)}: {missing}.</p>" if missing else ""
        self.table.value = said + _table(shown, self.opened.value)
        self.detail.children = tuple(self._details(self.opened.value)) if self.opened.value else ()

    def _point(self, row: Any, left: float, top: float) -> widgets.Button:
        layout = widgets.Layout(left=f"{left:.2%}", top=f"{top:.2%}")
        point = widgets.Button(tooltip=row.name, layout=layout).add_class("tb-point")
        if row.trial_ids[0] == self.opened.value:
            point.add_class("tb-open")
        point.on_click(lambda _, trial_id=row.trial_ids[0]: setattr(self.opened, "value", trial_id))
        return point

    def _details(self, trial_id: str) -> list[widgets.Widget]:
        """What there is of the first trial of a row."""
        notebook = self.folder / TRIALS_DIR / trial_id / NOTEBOOK_FILE
        parts: list[widgets.Widget] = [widgets.HTML(f"<h3>{escape(trial_id)}</h3>{_answers(self.tables, trial_id)}")]
        if (curves := _curves(self.tables, trial_id)) is not None:
            parts.insert(1, widgets.Image(value=curves, format="png", layout={"max_width": "600px"}))
        if notebook.is_file():
            link = escape(os.path.relpath(notebook))
            parts.append(widgets.HTML(f'<a href="{link}" target="_blank">the executed notebook</a>'))
            parts.append(_copy_button(notebook, self.by_hand / f"{trial_id}.ipynb"))
        return parts


def continue_by_hand(notebook: Path, copy: Path) -> Path:
    """Write a fresh copy of an executed notebook, without outputs and with its exact parameters; its path.

    A copy that is there already is somebody's work, and stays. Raises :class:`InputError` if it cannot be written.
    """
    book = nbformat.read(notebook, as_version=4)
    book.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for cell in book.cells:
        cell.metadata = {"tags": cell.metadata.get("tags", [])}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    if copy.is_file():
        return copy
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        create_atomically(copy, nbformat.writes(book))
    except OSError as error:
        raise InputError(f"{copy}: cannot be written: {error.strerror}; choose another folder by_hand") from error
    return copy


def _copy_button(notebook: Path, copy: Path) -> widgets.Widget:
    button, said = widgets.Button(description="Continue by hand"), widgets.HTML()

    def write(_: object) -> None:
        link = escape(os.path.relpath(continue_by_hand(notebook, copy)))
        said.value = f'<a href="{link}" target="_blank">{link}</a>'

    button.on_click(write)
    return widgets.HBox([button, said])


def _several(frame: pd.DataFrame, name: str) -> widgets.SelectMultiple:
    options = list(dict.fromkeys(frame[name]))
    return widgets.SelectMultiple(options=options, value=options, description=name, rows=min(8, max(2, len(options))))


def _named(chosen: pd.DataFrame) -> pd.DataFrame:
    """With ``label`` (method and varied settings) and ``name``, which tells every row from all others."""
    parts = [labelled(group.reset_index(drop=True)) for _, group in chosen.groupby(FACET, sort=False)]
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(name=frame.label + " · " + frame.task + " · " + frame.model)


def _with_metrics(frame: pd.DataFrame, tables: Tables) -> tuple[pd.DataFrame, dict[str, tuple[str, bool]]]:
    """With a column per metric of the test split, mean over the row's trials, and what axes call them."""
    ids = frame[["name", "trial_ids"]].explode("trial_ids").rename(columns={"trial_ids": "trial_id"})
    scores = where(tables, "scores", list(ids.trial_id), split="test").merge(ids, on="trial_id")
    means = scores.pivot_table(index="name", columns="metric", values="value", aggfunc="mean").add_prefix("metric ")
    names = {str(column).removeprefix("metric "): (str(column), False) for column in means.columns}
    return frame.merge(means, left_on="name", right_index=True, how="left"), names


Axis = tuple[str, str, bool]


def _plot(known: pd.DataFrame, x: Axis, y: Axis) -> tuple[bytes, list[tuple[float, float]]]:
    """A scatter plot as PNG, and where each point stands: shares of its width and height, from the left and the top."""
    with style():
        figure = Figure(figsize=_SIZE, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for method, across, up in zip(known.method, known[x[0]], known[y[0]], strict=True):
            axes.plot([across], [up], "o", ms=9, color=look(method).colour)
        for axis, (column, title, logarithmic) in ((axes.xaxis, x), (axes.yaxis, y)):
            axis.set_label_text(title)
            if logarithmic and (known[column] > 0).any():
                axis.axes.set(**{f"{axis.axis_name}scale": "symlog" if (known[column] <= 0).any() else "log"})
        figure.draw_without_rendering()
        pixels: Any = axes.transData.transform(known[[x[0], y[0]]].to_numpy(dtype=float)) if len(known) else []
        width, height = figure.get_size_inches() * figure.dpi
        return _png(figure), [(float(left) / width, 1 - float(up) / height) for left, up in pixels]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi)
    return buffer.getvalue()


def _table(shown: pd.DataFrame, opened: str | None) -> str:
    """What one looks for first: method, varied settings, score with its interval, costs, trial."""
    if shown.empty:
        return "<p>No row is left: choose more.</p>"
    return scroll(table([_line(row, opened) for row in rows(shown.sort_values([*FACET, "name"]))], "Rows"), "Rows")


def _line(row: Any, opened: str | None) -> dict[str, str]:
    span = "" if pd.isna(row.ci_low) else f" [{score_text(row.ci_low)}, {score_text(row.ci_high)}]"
    mark = "<b>▸</b> " if row.trial_ids[0] == opened else ""
    costs: dict[str, tuple[str, Callable[[float], str]]] = {
        "Trained": ("trainable_params", count_text),
        "Memory": ("peak_train_bytes", bytes_text),
        "Training": ("chain_train_s", seconds_text),
    }
    return {
        "Method": f"<td>{mark}{escape(row.label)}</td>",
        "Score [95 %]": number(row.test_score, score_text, span),
        **{head: number(getattr(row, name), say) for head, (name, say) in costs.items()},
        "Task": f"<td>{escape(row.task)}</td>",
        "Model": f"<td>{escape(row.model)}</td>",
        "Trial": f"<td><code>{escape(row.trial_ids[0])}</code></td>",
    }


def _answers(tables: Tables, trial_id: str, most: int = 5) -> str:
    answers = where(tables, "generations", [trial_id]).sort_values("example").head(most)
    if answers.empty:
        return "<p>No answers were kept.</p>"
    lines = [
        {"Prompt": text_cell(row.prompt), "Answer": text_cell(row.output), "Expected": text_cell(row.reference)}
        for row in rows(answers)
    ]
    return table(lines, "Answers")


def _curves(tables: Tables, trial_id: str) -> bytes | None:
    """The loss over the steps as PNG; None where nothing was trained."""
    curves = where(tables, "curves", [trial_id], metric="loss").dropna(subset="value")
    if curves.empty:
        return None
    with style():
        figure = Figure(figsize=(6, 2.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for split, group in curves.groupby("split", sort=False):
            axes.plot(group.step, group.value, label=str(split))
        axes.set(xlabel="step", ylabel="loss")
        axes.legend()
        return _png(figure)
