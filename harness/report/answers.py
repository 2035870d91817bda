"""Answers of the selected settings: some of all methods, and any two methods side by side with each example's score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness import plain
from harness.figures.panels import FACET, rows
from harness.judgement.labels import labelled
from harness.judgement.statistics import select
from harness.report.html import Html, data, escape, table, text_cell
from harness.results.files import Tables, where
from harness.results.selection import CELL

_LONGEST = 1200
"""Characters of a prompt or an answer in the page."""
_CHARACTERS = 3_000_000
"""All texts of the page together; a task and model get an equal share."""
_MOST = 100
"""Examples of one task and model."""


def generations(tables: Tables, examples: int = 3) -> Html:
    """Side by side, the answers of the selected settings, first seed, to the first ``examples`` of each test split."""
    answers = _answers(tables)
    if answers.empty:
        return Html("<p>No answers were recorded.</p>")
    parts = []
    for (task, model), frame in answers.groupby(FACET, sort=False):
        parts.append(f"<h3>{escape(str(task))} · {escape(str(model))}</h3>")
        example_ids = sorted(frame.example.unique())[:examples]
        for example in example_ids:
            of_one = frame[frame.example == example]
            asked = next(rows(of_one))
            lines = [{"Who": "<td><b>expected</b></td>", "Answer": text_cell(asked.reference)}]
            lines += [
                {"Who": f"<td>{escape(row.label)}</td>", "Answer": text_cell(_short(row.output))}
                for row in rows(of_one)
            ]
            is_open = " open" if example == example_ids[0] else ""
            parts.append(f"<details{is_open}><summary>Example {example}</summary>")
            parts.append(f"<pre>{escape(_short(asked.prompt))}</pre>{table(lines, f'Answers to {example}')}</details>")
    return Html("".join(parts))


def side_by_side(tables: Tables) -> Html:
    """Any two methods on the same examples, with what each example scored: who is right where the other is wrong.

    Of many examples, those stand in the page on which the methods' scores differ most; how many is said.
    """
    answers = _answers(tables)
    facets = [(str(task), str(model), frame) for (task, model), frame in answers.groupby(FACET, sort=False)]
    facets = [facet for facet in facets if facet[2].label.nunique() > 1]
    if not facets:
        return Html("<p>There are no answers of two methods to compare.</p>")
    parts = []
    for task, model, frame in facets:
        pairs = _pairs(frame, tables, _CHARACTERS // len(facets))
        parts.append(f"<h3>{escape(task)} · {escape(model)}</h3><p>{escape(pairs.said)}</p>")
        parts.append(f'<div class="pairs" hidden>{data(pairs.document)}</div>')
    return Html("".join(parts))


@dataclass(frozen=True)
class _Pairs:
    said: str
    document: Mapping[str, Any]


def _answers(tables: Tables) -> pd.DataFrame:
    """The answers of each row of the comparison, first seed, with its ``label`` and ``primary_metric``."""
    chosen = select(tables["trials"])
    first = chosen.sort_values("seed", kind="stable").drop_duplicates(CELL).sort_index()
    named = [labelled(group) for _, group in first.groupby(FACET, sort=False)]
    first = pd.concat(named) if named else first.assign(label="")
    columns = ["trial_id", "label", *FACET, "primary_metric", "higher_is_better"]
    return where(tables, "generations", first.trial_id).merge(first[columns], on="trial_id")


def _pairs(frame: pd.DataFrame, tables: Tables, room: int) -> _Pairs:
    labels = list(dict.fromkeys(frame.label))
    examples = sorted(int(example) for example in frame.example.unique())
    answers = frame.pivot_table(index="example", columns="label", values="output", aggfunc="first")
    scores = _scores(frame, tables, examples)
    spread = scores.max(axis=1) - scores.min(axis=1)
    order = spread.fillna(-1).sort_values(ascending=False, kind="stable").index
    asked = frame.drop_duplicates("example").set_index("example")
    shown: list[int] = []
    left = room
    for example in order[:_MOST]:
        texts = [asked.prompt[example], asked.reference[example], *answers.loc[example].dropna()]
        left -= sum(min(len(text), _LONGEST) for text in texts)
        if left < 0 and shown:
            break
        shown.append(int(example))
    document = {
        "methods": [plain.line(label) for label in labels],
        "metric": str(frame.primary_metric.iloc[0]),
        "higher": bool(frame.higher_is_better.fillna(True).iloc[0]),
        "binary": bool(scores.stack().isin([0.0, 1.0]).all()) and bool(scores.notna().any(axis=None)),
        "examples": [
            {
                "n": example,
                "prompt": _short(asked.prompt[example]),
                "expected": _short(asked.reference[example]),
                "answers": [_or_none(answers.at[example, label], _short) for label in labels],
                "scores": [
                    _or_none(scores.at[example, label], lambda value: round(float(value), 4)) for label in labels
                ],
            }
            for example in sorted(shown)
        ],
    }
    return _Pairs(_said(len(shown), len(examples), bool((spread > 0).any())), document)


def _said(shown: int, all_: int, differ: bool) -> str:
    if shown == all_:
        return f"All {all_} test examples whose answers were kept, first seed."
    which = "those on which the scores differ most" if differ else "the first ones"
    kept = f"{shown} of {all_} test examples whose answers were kept"
    return f"{kept}, {which}; first seed. The rest is in the table 'generations' of the sweep."


def _scores(frame: pd.DataFrame, tables: Tables, examples: Iterable[int]) -> pd.DataFrame:
    """The primary metric by example and label; NaN where a trial kept none.

    Answers are numbered in the order of the test split, in which the scores of its examples stand too.
    """
    first = frame.drop_duplicates("label")
    known = where(tables, "example_scores", first.trial_id, split="test")
    by_trial = dict(list(known.groupby(["trial_id", "metric"], sort=False).value))
    columns = {
        row.label: pd.Series(by_trial.get((row.trial_id, row.primary_metric), pd.Series()).to_numpy(dtype=np.float64))
        for row in rows(first)
    }
    return pd.DataFrame(columns).reindex(index=list(examples))


def _or_none(value: Any, say: Any) -> Any:
    return None if pd.isna(value) else say(value)


def _short(text: str) -> str:
    """A text of at most :data:`_LONGEST` characters, where nothing steers the reading order."""
    return plain.lines(plain.bounded(text, _LONGEST))
