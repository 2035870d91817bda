"""The comparison: a table per task and model that fits a laptop; what else is known of a row stands in its details."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from harness.figures.panels import FACET, rows
from harness.figures.style import bytes_text, count_text, look, percent_text, rate_text, score_text, seconds_text
from harness.judgement.labels import arguments_text, labelled
from harness.judgement.statistics import aggregate
from harness.judgement.verdicts import Comparison, Pair, Verdict, compare, is_trained
from harness.report.html import Html, cell, escape, kind_of, number, scroll, used_heads
from harness.report.trial_pages import PAGES
from harness.results.files import Tables

Cells = Mapping[str, str]


def comparison(tables: Tables, out_dir: str | Path | None = None) -> Html:
    """A table per task and model with a row per method, best first: its score and interval, its gain and its costs.

    Rows lead to the executed notebooks that ``out_dir`` holds, and name their trials in any case.
    """
    chosen = aggregate(tables)
    if chosen.empty:
        return Html("<p>No trial ended well.</p>")
    seeds = dict(zip(tables["trials"].trial_id, tables["trials"].seed, strict=True))
    parts = []
    for (task, model), frame in chosen.groupby(FACET, sort=False):
        frame = labelled(frame.reset_index(drop=True))
        higher = bool(frame.higher_is_better.iloc[0])
        frame = frame.sort_values("test_score", ascending=not higher, na_position="last", kind="stable")
        metric = frame.primary_metric.dropna()
        said = f"{metric.iloc[0]}, {'higher' if higher else 'lower'} is better" if len(metric) else "not scored"
        basis = "; ".join(frame.interval[frame.interval != "none"].unique())
        caption = f"Test score: {said}. Intervals: {basis or 'none'}."
        judged = _judged(compare(frame, tables))
        lines = [_cells(row, *judged.get(row.trial_ids, ("", None)), out_dir, seeds) for row in rows(frame)]
        details = [_details(row, seeds, out_dir) for row in rows(frame)]
        if (constant := frame.majority_score.dropna()).size:
            lines.append(_constant(lines[0], constant.iloc[0]))
            details.append("")
        parts.append(f"<h3>{escape(str(task))} · {escape(str(model))}</h3>")
        parts.append(_sortable(lines, details, caption, higher))
    return Html("".join(parts))


def _judged(comparisons: Iterable[Comparison]) -> dict[tuple[str, ...], tuple[str, Pair | None]]:
    """Per row, by its trials: its letters, and how it stands to the untrained model (null for what is not trained)."""
    judged: dict[tuple[str, ...], tuple[str, Pair | None]] = {}
    for comparison in comparisons:
        bare = comparison.zero_shot
        for place, (row, word) in enumerate(zip(rows(comparison.rows), comparison.letters(), strict=True)):
            against = comparison.pair(place, bare) if bare is not None and is_trained(row) else None
            judged[row.trial_ids] = (word if len(comparison.rows) > 1 else "", against)
    return judged


_SURE = {Verdict.BETTER: " ✓", Verdict.WORSE: " ✗", Verdict.EQUIVALENT: " ="}
_METHOD, _SCORE, _GAIN = "Method", "Score [95 %]", "Gain"


def _cells(
    row: Any, letters: str, against: Pair | None, out_dir: str | Path | None, seeds: Mapping[str, int]
) -> dict[str, str]:
    gain = None if against is None else against.difference.estimate
    sure = "" if against is None else _SURE.get(against.verdict, " <small>?</small>")
    span = "" if pd.isna(row.ci_low) else f" <small>[{score_text(row.ci_low)}, {score_text(row.ci_high)}]</small>"
    name = escape(row.label)
    first = min(row.trial_ids, key=lambda one: (seeds.get(one, 0), one))
    if (page := _page(first, out_dir)) is not None:
        name = f'<a href="{page}" title="the executed notebook">{name}</a>'
    swatch = f'<span class="swatch" style="background:{look(row.method).colour}"></span>'
    return {
        _METHOD: f'<td class="name" data-value="{escape(row.label)}"><div>{swatch}<span>{name}</span></div></td>',
        _SCORE: number(row.test_score, score_text, span),
        "Group": f'<td class="group">{escape(letters)}</td>',
        _GAIN: cell(float("nan"), "") if gain is None else cell(gain, f"{gain:+.3f}{sure}"),
        "Trained": number(row.trainable_params, count_text),
        "Stored": number(row.checkpoint_bytes, bytes_text),
        "Memory": number(row.peak_train_bytes, bytes_text),
        "Training": number(row.chain_train_s, seconds_text),
        "Prompt": number(row.prefill_s_p50, seconds_text),
        "Token": number(row.decode_s_per_token_p50, seconds_text),
    }


def _constant(like: Cells, score: float) -> dict[str, str]:
    """A line for the one label that scores most when it answers every example."""
    filled = {
        _METHOD: '<td class="name" data-value="~"><div><span>one label for every example</span></div></td>',
        _SCORE: number(score, score_text),
    }
    return {head: filled.get(head, '<td class="number" data-value=""></td>') for head in like}


def _page(trial_id: str, out_dir: str | Path | None) -> str | None:
    """Where the executed notebook of a trial stands, seen from the page; None where it does not."""
    name = f"{trial_id}.html"
    there = out_dir is not None and (Path(out_dir) / PAGES / name).is_file()
    return f"{PAGES}/{escape(name)}" if there else None


def _details(row: Any, seeds: Mapping[str, int], out_dir: str | Path | None) -> str:
    """What else is known of a row, as a list of terms: its setting in full, and its trials."""
    items = [f"<dt>{escape(term)}</dt><dd>{said}</dd>" for term, said in _terms(row, seeds, out_dir) if said]
    return f"<dl>{''.join(items)}</dl>"


def _terms(row: Any, seeds: Mapping[str, int], out_dir: str | Path | None) -> Iterable[tuple[str, str]]:
    def value(name: str, say: Callable[[float], str], more: str = "") -> str:
        known = getattr(row, name)
        return "" if pd.isna(known) else escape(say(known)) + more

    yield "learning rate", value("learning_rate", rate_text)
    yield "settings tried", value("settings_tried", lambda n: f"{n:g}")
    yield "arguments", escape(arguments_text(row.method_args))
    yield "objective", escape(", ".join(filter(None, [row.objective, arguments_text(row.objective_args)])))
    yield "seeds", value("seeds", lambda n: f"{n:g}")
    yield "validation score", value("valid_score", score_text)
    yield "untrained score", value("base_score", score_text)
    yield "trained share", value("trainable_share", percent_text)
    yield "training speed", value("train_tokens_per_s", lambda n: f"{count_text(n)} tokens/s")
    yield "one step", value("train_step_s_median", seconds_text)
    yield "training alone", value("train_s", seconds_text) if _has_chain(row) else ""
    yield "forgetting", value("forgetting", lambda n: f"{n:+.3f} nats per token")
    yield "energy", value("energy_j", lambda n: f"{count_text(n)} J")
    yield "MFU", value("mfu", percent_text)
    yield "starts from", escape(", ".join(json.loads(row.parent_settings or "{}")))
    yield "trials", ", ".join(_trial(one, seeds.get(one), out_dir) for one in row.trial_ids)


def _has_chain(row: Any) -> bool:
    """Whether the training time holds that of trials which this one was trained from."""
    known = not pd.isna(row.train_s) and not pd.isna(row.chain_train_s)
    return known and bool(row.chain_train_s > row.train_s)


def _trial(trial_id: str, seed: int | None, out_dir: str | Path | None) -> str:
    page = _page(trial_id, out_dir)
    name = f"<code>{escape(trial_id)}</code>"
    return f"seed {seed}: " + (f'<a href="{page}">{name}</a>' if page else name)


def _sortable(lines: list[dict[str, str]], details: list[str], caption: str, higher: bool) -> str:
    """A table whose heads sort it and whose rows open; each row and its details are one body, so that they stay."""
    used = used_heads(list(lines))
    heads = "".join(
        f'<th scope="col"{kind_of(lines[0][head])} data-first="{_first(head, higher)}">'
        f'<button type="button">{escape(head)}</button></th>'
        for head in used
    )
    bodies = "".join(
        f"<tbody><tr>{''.join(line[head] for head in used)}</tr>{_more(more, len(used))}</tbody>"
        for line, more in zip(lines, details, strict=True)
    )
    wide = f'<table class="sortable"><thead><tr>{heads}</tr></thead>{bodies}</table>'
    return f'<div class="comparison"><p class="caption">{escape(caption)}</p>{scroll(wide, caption)}</div>'


def _more(details: str, columns: int) -> str:
    return f'<tr class="more" hidden><td colspan="{columns}">{details}</td></tr>' if details else ""


def _first(head: str, higher: bool) -> str:
    """The direction of a column's first click: the best first."""
    if head == _SCORE:
        return "descending" if higher else "ascending"
    return "descending" if head == _GAIN else "ascending"
