"""The sections of the report as HTML. Every text from a table is escaped, because models may answer with markup.

Each function takes the tables by name (:func:`harness.results.tables.read`) and returns what a notebook displays.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from harness.figures import DESCRIPTIONS, FIGURES, Nothing, save
from harness.figures.findings import answer, caution
from harness.figures.panels import title_of
from harness.figures.style import seconds_text
from harness.judgement.controls import Said, control_sentences
from harness.judgement.statistics import aggregate
from harness.report.answers import generations, side_by_side
from harness.report.compared import comparison
from harness.report.groups import groups
from harness.report.html import Html, escape, plain_table, scroll, table
from harness.results.files import Tables
from harness.results.schema import TABLES

__all__ = [
    "Html",
    "brief",
    "comparison",
    "control",
    "downloads",
    "endings",
    "escape",
    "figure",
    "generations",
    "groups",
    "machine",
    "side_by_side",
    "sources",
]


def brief(tables: Tables) -> Html:
    """The answer in brief: for each task and model, sentences computed from the selected settings."""
    chosen = aggregate(tables)
    answers = answer(chosen, tables)
    if not answers:
        return Html("<p>No trained model was scored, so there is no answer yet. How the trials ended stands below.</p>")
    warning = caution(chosen[chosen.test_score.notna()])
    parts = [f"<p><strong>{escape(warning)}.</strong></p>"] if warning else []
    parts += [f"<p><strong>{_of_place(one)}</strong></p>" for one in control_sentences(tables) if one.holds is False]
    for (task, model), sentences in answers.items():
        items = "".join(f"<li>{escape(sentence)}.</li>" for sentence in sentences)
        parts.append(f"<h3>{escape(task)} · {escape(model)}</h3><ul>{items}</ul>")
    return Html("".join(parts))


def control(tables: Tables) -> Html:
    """Whether the timings can be trusted: by networks that must answer equally fast, for each place with times."""
    items = "".join(f"<li>{_of_place(one)}</li>" for one in control_sentences(tables))
    return Html(f"<ul>{items}</ul>" if items else "<p>Nothing was timed.</p>")


def _of_place(said: Said) -> str:
    return f"{escape(said.place)}: {escape(said.sentence)}."


def endings(tables: Tables) -> Html:
    """How the trials ended, with the reason for every one that did not end well."""
    trials = tables["trials"]
    counts = ", ".join(f"{count} {escape(str(status))}" for status, count in trials.status.value_counts().items())
    parts = [f"<p>{len(trials)} trials: {counts or 'none'}.</p>"]
    bad = trials[trials.status != "ok"]
    if len(bad):
        keys = ["method", "task", "model", "status", "reason"]
        parts.append(_counted(bad.fillna({"reason": "no reason was given"}), keys))
    if notes := _notes(trials[trials.note.notna()]):
        parts.append(
            f"<p>What to know about these trials:</p><ul>{''.join(f'<li>{note}.</li>' for note in notes)}</ul>"
        )
    return Html("".join(parts))


def _notes(trials: pd.DataFrame) -> list[str]:
    """Each note once: what holds for all trials of a model with the model, and the rest with its methods."""
    by_note: dict[str, list[str]] = {}
    for model, group in trials.groupby("model", sort=False):
        remarks = [note.split("; ") for note in group.note]
        common = [one for one in remarks[0] if all(one in others for others in remarks)]
        if common and group.method.nunique() > 1:
            by_note.setdefault("; ".join(common), []).append(str(model))
        else:
            common = []
        own = ["; ".join(one for one in of_trial if one not in common) for of_trial in remarks]
        for note, methods in group.assign(own=own).groupby("own", sort=False).method:
            if note:
                by_note.setdefault(str(note), []).append(f"{', '.join(dict.fromkeys(methods))} on {model}")
    notes = [f"<b>{escape('; '.join(who))}</b>: {escape(note)}" for note, who in by_note.items()]
    rest = len(notes) - _LINES
    return [*notes[:_LINES], f"{rest} more notes are in trials.csv"] if rest > 0 else notes


def _counted(trials: pd.DataFrame, keys: list[str]) -> str:
    """A table of how many trials share each combination of ``keys``, cut to the most frequent :data:`_LINES`."""
    counts = trials.groupby(keys, sort=False).size().rename("trials").reset_index()
    if len(counts) <= _LINES:
        return plain_table(counts)
    most_frequent = counts.sort_values("trials", ascending=False, kind="stable").head(_LINES)
    rest = counts.trials.sum() - most_frequent.trials.sum()
    others = f"{rest} more trials, of {len(counts) - _LINES} other kinds, are in trials.csv."
    return f"{plain_table(most_frequent)}<p>{others}</p>"


_LINES = 50
"""The most rows of a list in the report."""


_LARGE_BYTES = 400_000
"""A larger drawing stands in the page as pixels, and beside it as a drawing."""


def figure(name: str, tables: Tables, out_dir: str | Path) -> Html:
    """Draw a figure, save it as PNG and SVG in ``out_dir/figures``, and show it with its finding as text.

    What has nothing to show from these tables is left out.
    """
    drawn = FIGURES[name](tables)
    if isinstance(drawn, Nothing):
        return Html("")
    png, svg = save(drawn, Path(out_dir) / "figures", name)
    kind, picture = ("svg+xml", svg) if svg.stat().st_size <= _LARGE_BYTES else _smaller(svg, png)
    data = base64.b64encode(picture.read_bytes()).decode()
    files = f'<a href="figures/{name}.svg">SVG</a>, <a href="figures/{name}.png">PNG</a>'
    image = f'<img alt="{escape(title_of(drawn))}" src="data:image/{kind};base64,{data}">'
    return Html(
        f"<figure>{scroll(image, DESCRIPTIONS[name])}"
        f"<figcaption>{escape(DESCRIPTIONS[name])} {files}</figcaption></figure>"
    )


def _smaller(svg: Path, png: Path) -> tuple[str, Path]:
    return ("png", png) if png.stat().st_size < svg.stat().st_size else ("svg+xml", svg)


def machine(tables: Tables) -> Html:
    """Machine, versions, commit, budget and dates: every value that occurs in the rows."""
    trials = tables["trials"]
    facts = {title: _distinct(trials[column]) for title, column in _FACTS.items()}
    if len(started := trials.started_at.dropna()):
        facts["Measured"] = f"{started.min():%Y-%m-%d} to {started.max():%Y-%m-%d} (UTC)"
    spent = trials.duration_s.sum()
    facts["Wall time of all trials"] = seconds_text(spent) if spent > 0 else ""
    items = "".join(f"<dt>{escape(title)}</dt><dd>{escape(said)}</dd>" for title, said in facts.items() if said)
    return Html(f"<dl>{items}</dl>")


_FACTS = {
    "Sweep": "sweep",
    "Machine": "hostname",
    "Processor": "processor",
    "Threads of each trial": "processor_threads",
    "Accelerator": "accelerator",
    "Device": "device",
    "Model revision": "model_revision",
    "Task version": "task_version",
    "Number format": "dtype",
    "Training examples": "train_examples",
    "Batch size": "batch_size",
    "Epochs": "epochs",
    "Maximum length (tokens)": "max_length",
    "Maximum examples scored": "eval_examples",
    "Maximum answer (tokens)": "max_new_tokens",
    "Probes": "probes",
    "Sequences of a timed batch": "latency_batches",
    "Seeds": "seed",
    "Protocol version": "protocol_version",
    "torch": "torch_version",
    "transformers": "transformers_version",
    "peft": "peft_version",
    "trl": "trl_version",
    "bitsandbytes": "bitsandbytes_version",
    "Commit": "git_commit",
    "Uncommitted changes": "git_dirty",
}


def sources(tables: Tables) -> Html:
    """Licences and caveats of the data and models that this installation describes."""
    from harness.models.spec import load_spec as model_spec
    from harness.models.spec import names as model_names
    from harness.tasks.spec import load_spec as task_spec

    lines = []
    for name in tables["trials"].task.unique():
        if (task := _known(task_spec, name)) is not None:
            licence = task.license.data if task.license else "not stated"
            lines.append(_source("data", name, licence, task.citation, task.notes))
    for name in tables["trials"].model.unique():
        # Nothing else is asked about here: a report needs no network.
        if name.partition("@")[0] in model_names() and (model := _known(model_spec, name)) is not None:
            lines.append(_source("model", name, model.license or "not stated", model.description, model.note))
    return Html(
        table(lines, "Data and models")
        if lines
        else "<p>This installation describes none of these data sets and models.</p>"
    )


def downloads(out_dir: str | Path) -> Html:
    """Links to the tables beside the page, and the names of those that were too large to copy."""
    names = sorted(path.name for path in (Path(out_dir) / "tables").glob("*.csv"))
    links = ", ".join(f'<a href="tables/{escape(name)}">{escape(name)}</a>' for name in names)
    large = ", ".join(sorted(f"{name}.csv" for name in TABLES if names and f"{name}.csv" not in names))
    rest = (
        f" Not beside it, because empty or too large: {large}; the sweep's folder has what there is." if large else ""
    )
    return Html(f"<p>Tables beside this page: {links or 'none'}.{rest}</p>")


def _known(load: Callable[[str], Any], name: str) -> Any | None:
    from harness.errors import InputError

    try:
        return load(name)
    except InputError:  # a name from another installation, or a folder that no longer exists
        return None


def _source(kind: str, name: str, licence: str, about: str | None, caveat: str | None) -> dict[str, str]:
    texts = {"Kind": kind, "Name": name, "Licence": licence, "About": about or "", "Caveat": caveat or ""}
    return {head: f"<td>{escape(text)}</td>" for head, text in texts.items()}


def _distinct(column: pd.Series) -> str:
    words = {True: "yes", False: "no"} if column.dtype == "boolean" else {}
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(words.get(value, value))
                     for value in column.dropna().unique())  # fmt: skip
