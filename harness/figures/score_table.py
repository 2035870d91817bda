"""Every method on every task, as the tables of GLUE (Houlsby et al. 2019, table 1; Ben Zaken et al. 2021, table 1)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.figures import published
from harness.figures.grids import cell_texts, draw_grid, half_intervals
from harness.figures.panels import Nothing, Panel, Tables, View, compose, shortened, why_empty
from harness.figures.style import score_text
from harness.figures.words import leading
from harness.judgement.labels import labelled
from harness.judgement.statistics import aggregate
from harness.tasks.metrics import METRICS

_MEAN = "mean"


def draw(tables: Tables) -> Figure | Nothing:
    """A table per model: mean test scores and half their intervals, shaded from the worst to the best of a task."""
    chosen = aggregate(tables)
    scored = chosen[chosen.test_score.notna() & chosen.objective.isin(_SUPERVISED)]
    several = scored.groupby(["model", "method", "method_args"], dropna=False).task.transform("nunique") > 1
    models = list(scored.model[several].unique()) if len(scored) else []
    panels = [view for model in models if (view := _view(str(model), scored[scored.model == model])) is not None]
    if not panels:
        return Nothing(why_empty(tables["trials"], "no method was scored on two tasks with one model"))
    return compose([*panels, _glue()], height=lambda rows: 1.1 + 0.36 * rows)


_SUPERVISED = ("classification", "sft", "clm")
"""The objectives whose scores are those of the task; a reward model's, or a policy's, are another matter."""


def _view(model: str, frame: pd.DataFrame) -> View | None:
    """The table of one model; None where no label stands on two tasks.

    Rows that differ in their budget alone have one label, because each task may have a budget of its own.
    """
    frame = frame.assign(column=frame.task + "\n" + frame.primary_metric.fillna(""))
    frame = labelled(frame.reset_index(drop=True), _PER_TASK)
    double = frame.duplicated(["label", "column"], keep=False)
    frame = frame if not double.any() else labelled(frame)
    several = frame.groupby("label").column.transform("nunique") > 1
    alone = int((~several).sum())
    frame = shortened(frame[several].reset_index(drop=True))
    if frame.empty:
        return None
    cells = frame.pivot_table(index="label", columns="column", values="test_score", sort=False)
    halves = half_intervals(frame).groupby([frame.label, frame.column]).mean().unstack()
    higher = frame.groupby("column").higher_is_better.first()
    with_mean = _alike(frame) and bool(cells.notna().all(axis=None))
    if with_mean:
        cells[_MEAN] = cells.mean(axis=1)
        cells = cells.sort_values(_MEAN, ascending=False, kind="stable")
        halves, higher[_MEAN] = halves.assign(**{_MEAN: np.nan}), True
    finding = _finding(cells, higher, with_mean)

    def draw_table(panel: Panel) -> str:
        draw_grid(panel, cells, cell_texts(cells, halves, score_text), higher)
        return finding

    where = f"{model} · {alone} rows on one task left out" if alone else model
    return View(
        where, draw_table, len(cells), name_length=int(cells.index.str.len().max()) + _WIDE * len(cells.columns)
    )


_PER_TASK = (
    "notebook",
    "objective",
    "objective_args",
    "train_examples",
    "batch_size",
    "epochs",
    "max_length",
    "eval_examples",
    "max_new_tokens",
    "probes",
    "latency_batches",
    "task_version",
)
_WIDE = 6
"""A column takes so many characters; a table with many gets the width of the figure."""


def _alike(frame: pd.DataFrame) -> bool:
    """Whether a mean over the tasks means something: every metric is better when higher, and has 1 as its maximum."""
    known = [METRICS.get(metric) for metric in frame.primary_metric.unique()]
    return all(metric is not None and metric.higher_is_better and metric.maximum == 1 for metric in known)


def _finding(cells: pd.DataFrame, higher: pd.Series, with_mean: bool) -> str:
    if with_mean:
        best = leading(cells.reset_index(), _MEAN, largest=True) if len(cells) > 1 else None
        if best is None:
            mean = score_text(cells[_MEAN].iloc[0])
            return f"{cells.index[0]} scores {mean} on average of {len(cells.columns) - 1} tasks"
        return f"{best.who} highest on average of {len(cells.columns) - 1} tasks: {best.text}"
    parts = []
    for column in map(str, cells):
        known = cells[column].dropna().rename("score").reset_index()
        best = leading(known, "score", largest=bool(higher[column]))
        parts.append(f"{best.who} best on {column.splitlines()[0]} ({best.text})")
    return "; ".join(parts[:_SAID]) + (f"; and so on for {len(parts) - _SAID} more tasks" if len(parts) > _SAID else "")


_SAID = 4
"""A finding names the best of so many tasks."""


_SHORT = {"mnli_matched": "mnli m", "mnli_mismatched": "mnli mm", "glue_avg": "mean"}


def _glue() -> View:
    """BERT-large on the development sets: the authors' own runs, mean and standard deviation of five seeds."""
    frame = published.read("zaken2021_bitfit")
    frame = frame[frame.setting.str.startswith("validation") & ~frame.note.str.contains("Guo")]
    frame = frame.assign(label=frame.method.str.replace("_", " "))
    cells = frame.pivot_table(index="label", columns="task", values="value", sort=False)
    errors = frame.pivot_table(index="label", columns="task", values="error", sort=False)
    texts = cell_texts(cells, errors, lambda value: f"{value:.1f}")
    mean = cells["glue_avg"]
    said = f"BitFit averages {mean['bitfit']:.1f} with 0.08 % of the parameters, full fine-tuning {mean['full']:.1f}"

    def draw_table(panel: Panel) -> str:
        draw_grid(panel, cells.rename(columns=_SHORT), texts, None)
        return said

    return View(
        published.where(frame, "GLUE, BERT-large, dev sets, ± standard deviation"), draw_table, len(cells), True, 99
    )
