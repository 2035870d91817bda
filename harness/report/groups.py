"""Groups of tasks, such as GLUE: a table for each, with the average of every method."""

from __future__ import annotations

import itertools
import math

from harness.figures.style import score_text
from harness.judgement.groups import group_averages
from harness.judgement.labels import arguments_text
from harness.report.html import Html, escape, number, table, text_cell
from harness.results.files import Tables
from harness.tasks.groups import load_group


def groups(tables: Tables) -> Html:
    """A table for each group of which a member ran, with a row per model and method; empty where there is none."""
    parts = []
    for name, averages in itertools.groupby(group_averages(tables), key=lambda one: one.group):
        group = load_group(name)
        lines = [
            {
                "Model": f'<td class="name">{escape(str(one.row.model))}</td>',
                "Method": f'<td class="name">{escape(one.row.method)}</td>',
                "Setting": text_cell(arguments_text(one.row.method_args)),
                "Average": number(math.nan if one.average is None else one.average, score_text),
                "± over seeds": number(math.nan if one.seed_stderr is None else one.seed_stderr, score_text),
                "Seeds": number(one.seeds or math.nan, lambda n: f"{n:g}"),
                "Scored": f"<td>{one.scored} of {one.members}</td>",
                "No average, because": text_cell(one.reason or ""),
            }
            for one in averages
        ]
        caption = (
            "The mean over the members on test, each with its selected setting and the metrics of the group's paper; "
            "± is one standard error over seeds, and says nothing of the test examples."
        )
        said = " ".join(f"{text[:1].upper()}{text[1:]}." for text in (group.description, group.notes) if text)
        parts.append(f"<h3>{escape(name)}</h3><p>{escape(said)}</p>")
        parts.append(f'<p class="caption">{escape(caption)}</p>{table(lines, name)}')
    return Html("".join(parts))
