"""The sections of the report as HTML. Every text from a table is escaped, because models may answer with markup.

Each function takes the tables by name (:func:`harness.results.tables.read`) and returns what a notebook displays.
"""

from __future__ import annotations

import base64
import html
import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness import plain
from harness.figures import DESCRIPTIONS, FIGURES, save
from harness.figures.findings import answer, caution
from harness.figures.panels import FACET, arguments_text, labelled, rows, title_of
from harness.figures.style import bytes_text, count_text, look, percent_text, rate_text, score_text, seconds_text
from harness.judgement.groups import GroupAverage, group_averages
from harness.judgement.statistics import CELL, aggregate, select
from harness.judgement.verdicts import Comparison, Pair, Verdict, compare, is_trained
from harness.results.files import Tables, where
from harness.results.schema import TABLES
from harness.tasks.groups import load_group


@dataclass(frozen=True)
class Html:
    """HTML that a notebook renders."""

    text: str

    def _repr_html_(self) -> str:
        return self.text


def escape(text: str) -> str:
    """``text`` as a page shows it: no markup, and nothing that turns the reading order round."""
    return html.escape(plain.lines(text))


def brief(tables: Tables) -> Html:
    """The answer in brief: for each task and model, sentences computed from the selected settings."""
    chosen = aggregate(tables)
    answers = answer(chosen, tables)
    if not answers:
        return Html("<p>No trained model was scored, so there is no answer yet. How the trials ended stands below.</p>")
    warning = caution(chosen[chosen.test_score.notna()])
    parts = [f"<p><strong>{escape(warning)}.</strong></p>"] if warning else []
    for (task, model), sentences in answers.items():
        items = "".join(f"<li>{escape(sentence)}.</li>" for sentence in sentences)
        parts.append(f"<h3>{escape(task)} · {escape(model)}</h3><ul>{items}</ul>")
    return Html("".join(parts))


def comparison(tables: Tables) -> Html:
    """A table per task and model, with a row per method: its score and interval, the settings tried, and its costs."""
    chosen = aggregate(tables)
    if chosen.empty:
        return Html("<p>No trial ended well.</p>")
    parts = []
    for (task, model), frame in chosen.groupby(FACET, sort=False):
        frame = labelled(frame.reset_index(drop=True))
        higher = bool(frame.higher_is_better.iloc[0])
        frame = frame.sort_values("test_score", ascending=not higher, na_position="last")
        metric = frame.primary_metric.dropna()
        said = f"{metric.iloc[0]}, {'higher' if higher else 'lower'} is better" if len(metric) else "not scored"
        parts.append(f"<h3>{escape(str(task))} · {escape(str(model))}</h3>")
        basis = "; ".join(frame.interval[frame.interval != "none"].unique())
        caption = f"Test score: {said}. Intervals: {basis or 'none'}."
        judged = _judged(compare(frame, tables))
        lines = [_compared(row, *judged.get(row.trial_ids, ("", None))) for row in rows(frame)]
        if (constant := frame.majority_score.dropna()).size:
            lines.append(_constant(lines[0], constant.iloc[0]))
        parts.append(_table(lines, caption, sortable=True))
    return Html("".join([*parts, *of_groups(group_averages(tables))]))


def of_groups(averages: Sequence[GroupAverage]) -> Iterable[str]:
    """A table for each group of tasks, such as GLUE, with a row per model and method."""
    for name, of_group in itertools.groupby(averages, key=lambda one: one.group):
        members = list(of_group)
        group = load_group(name)
        lines = [
            {
                "Model": f'<td class="name">{escape(str(one.row.model))}</td>',
                "Method": f'<td class="name">{escape(one.row.method)}</td>',
                "Setting": f'<td class="setting">{escape(arguments_text(one.row.method_args))}</td>',
                "Average": _number(math.nan if one.average is None else one.average, score_text),
                "± over seeds": _number(math.nan if one.seed_stderr is None else one.seed_stderr, score_text),
                "Seeds": _number(one.seeds or math.nan, lambda n: f"{n:g}"),
                "Scored": f"<td>{one.scored} of {one.members}</td>",
                "No average, because": _text(one.reason or ""),
            }
            for one in members
        ]
        caption = (
            "The mean over the members on test, each with its selected setting and the metrics of the group's paper; "
            "± is one standard error over seeds, and says nothing of the test examples."
        )
        said = " ".join(f"{text[:1].upper()}{text[1:]}." for text in (group.description, group.notes) if text)
        yield f"<h3>{escape(name)}</h3><p>{escape(said)}</p>{_table(lines, caption)}"


def _judged(comparisons: Iterable[Comparison]) -> dict[tuple[str, ...], tuple[str, Pair | None]]:
    """Per row, by its trials: its letters, and how it stands to the untrained model (null for what is not trained)."""
    judged: dict[tuple[str, ...], tuple[str, Pair | None]] = {}
    for comparison in comparisons:
        bare = comparison.zero_shot
        for place, (row, word) in enumerate(zip(rows(comparison.rows), comparison.letters(), strict=True)):
            against = comparison.pair(place, bare) if bare is not None and is_trained(row) else None
            judged[row.trial_ids] = (word if len(comparison.rows) > 1 else "", against)
    return judged


def _constant(like: Mapping[str, str], score: float) -> dict[str, str]:
    """A line for what a model gets that reads nothing, such as one label for every example."""
    filled = {
        "Method": '<td class="name">a model that reads nothing</td>',
        "Test score [95 %]": _number(score, score_text),
    }
    return {head: filled.get(head, '<td class="number" data-value=""></td>') for head in like}


_SURE = {Verdict.BETTER: " ✓", Verdict.WORSE: " ✗", Verdict.EQUIVALENT: " ="}


def _compared(row: Any, letters: str, against: Pair | None) -> dict[str, str]:
    gain = None if against is None else against.difference.estimate
    sure = "" if against is None else _SURE.get(against.verdict, " <small>unclear</small>")
    span = "" if pd.isna(row.ci_low) else f" <small>[{score_text(row.ci_low)}, {score_text(row.ci_high)}]</small>"
    rate = "" if pd.isna(row.learning_rate) else f"lr {rate_text(row.learning_rate)}"
    setting = ", ".join(filter(None, [rate, arguments_text(row.method_args), arguments_text(row.objective_args)]))
    kind = "name" if len(setting) < 24 else "setting"
    share = "" if pd.isna(row.trainable_share) else f" <small>{percent_text(row.trainable_share)}</small>"
    swatch = f'<span class="swatch" style="background:{look(row.method).colour}"></span>'
    return {
        "Method": f'<td class="name">{swatch}{escape(row.label)}</td>',
        "Test score [95 %]": _number(row.test_score, score_text, span),
        "Group": f"<td>{escape(letters)}</td>",
        "Gain": _cell(math.nan, "") if gain is None else _cell(gain, f"{gain:+.3f}{sure}"),
        "Seeds": _number(row.seeds, lambda n: f"{n:g}"),
        "Tried": _number(row.settings_tried, lambda n: f"{n:g}"),
        "Chosen setting": f'<td class="{kind}">{escape(setting)}</td>',
        "Trainable": _number(row.trainable_params, count_text, share),
        "Stored": _number(row.checkpoint_bytes, bytes_text),
        "Memory": _number(row.peak_train_bytes, bytes_text),
        "Tokens/s": _number(row.train_tokens_per_s, count_text),
        "Training": _number(row.chain_train_s, seconds_text, _alone(row)),
        "Prompt": _number(row.prefill_s_p50, seconds_text),
        "Token": _number(row.decode_s_per_token_p50, seconds_text),
    }


def _alone(row: Any) -> str:
    """What of the training time is not that of trials which this one was trained from; '' where there are none."""
    known = not pd.isna(row.train_s) and not pd.isna(row.chain_train_s)
    if not known or row.chain_train_s <= row.train_s:
        return ""
    return f" <small>{seconds_text(row.train_s)} without what it was trained from</small>"


def endings(tables: Tables) -> Html:
    """How the trials ended, with the reason for every one that did not end well."""
    trials = tables["trials"]
    counts = ", ".join(f"{count} {escape(str(status))}" for status, count in trials.status.value_counts().items())
    parts = [f"<p>{len(trials)} trials: {counts or 'none'}.</p>"]
    bad = trials[trials.status != "ok"]
    if len(bad):
        keys = ["method", "task", "model", "status", "reason"]
        parts.append(_counted(bad.fillna({"reason": "no reason was given"}), keys))
    noted = trials[trials.note.notna()]
    if len(noted):
        parts.append("<p>What to know about some trials:</p>")
        parts.append(_counted(noted, ["method", "model", "note"]))
    return Html("".join(parts))


def _counted(trials: pd.DataFrame, keys: list[str]) -> str:
    """A table of how many trials share each combination of ``keys``, cut to the most frequent :data:`_LINES`."""
    counts = trials.groupby(keys, sort=False).size().rename("trials").reset_index()
    if len(counts) <= _LINES:
        return _plain(counts)
    most_frequent = counts.sort_values("trials", ascending=False, kind="stable").head(_LINES)
    rest = counts.trials.sum() - most_frequent.trials.sum()
    others = f"{rest} more trials, of {len(counts) - _LINES} other kinds, are in trials.csv."
    return f"{_plain(most_frequent)}<p>{others}</p>"


_LINES = 50
"""The most rows of a list in the report."""


def figure(name: str, tables: Tables, out_dir: str | Path) -> Html:
    """Draw a figure, save it as PNG and SVG in ``out_dir/figures``, and show it with its finding as text."""
    drawn = FIGURES[name](tables)
    _, svg = save(drawn, Path(out_dir) / "figures", name)
    data = base64.b64encode(svg.read_bytes()).decode()
    files = f'<a href="figures/{name}.svg">SVG</a>, <a href="figures/{name}.png">PNG</a>'
    return Html(
        f'<figure><img alt="{escape(title_of(drawn))}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{escape(DESCRIPTIONS[name])} {files}</figcaption></figure>"
    )


def generations(tables: Tables, examples: int = 3) -> Html:
    """Side by side, the answers of the selected settings, first seed, to the first ``examples`` of each test split."""
    chosen = select(tables["trials"])
    first = chosen.sort_values("seed", kind="stable").drop_duplicates(CELL).sort_index()
    answers = where(tables, "generations", first.trial_id).merge(first[["trial_id", *CELL]], on="trial_id")
    if answers.empty:
        return Html("<p>No answers were recorded.</p>")
    parts = []
    for (task, model), frame in answers.groupby(FACET, sort=False):
        parts.append(f"<h3>{escape(str(task))} · {escape(str(model))}</h3>")
        example_ids = sorted(frame.example.unique())[:examples]
        for example in example_ids:
            of_one = labelled(frame[frame.example == example])
            asked = next(rows(of_one))
            lines = [{"Who": "<td><b>expected</b></td>", "Answer": _text(asked.reference)}]
            lines += [{"Who": f"<td>{escape(row.label)}</td>", "Answer": _text(row.output)} for row in rows(of_one)]
            is_open = " open" if example == example_ids[0] else ""
            parts.append(f"<details{is_open}><summary>Example {example}</summary>")
            parts.append(f"<pre>{escape(asked.prompt)}</pre>{_table(lines)}</details>")
    return Html("".join(parts))


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
    return Html(_table(lines) if lines else "<p>This installation describes none of these data sets and models.</p>")


def downloads(out_dir: str | Path) -> Html:
    """Links to the tables beside the page, and the names of those that were too large to copy."""
    names = sorted(path.name for path in (Path(out_dir) / "tables").glob("*.csv"))
    links = ", ".join(f'<a href="tables/{escape(name)}">{escape(name)}</a>' for name in names)
    large = ", ".join(sorted(f"{name}.csv" for name in TABLES if names and f"{name}.csv" not in names))
    rest = f" Too large to copy, and only in the folder of the sweep: {large}." if large else ""
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
    return ", ".join(str(words.get(value, value)) for value in column.dropna().unique())


def _text(value: str) -> str:
    return f'<td class="text">{escape(value)}</td>'


def _number(value: float, say: Callable[[float], str], more: str = "") -> str:
    return _cell(value, "" if pd.isna(value) else say(value) + more)


def _cell(value: float, html: str) -> str:
    key = "" if pd.isna(value) else f"{value!r}"
    return f'<td class="number" data-value="{key}">{html}</td>'


def _plain(frame: pd.DataFrame) -> str:
    heads = [str(name) for name in frame.columns]
    values = frame.itertuples(index=False, name=None)
    return _table([{h: f"<td>{escape(str(v))}</td>" for h, v in zip(heads, row, strict=True)} for row in values])


def _table(lines: Iterable[Mapping[str, str]], caption: str = "", sortable: bool = False) -> str:
    """A table of finished, escaped cells (``<td>…</td>``), without the columns that are empty in every row."""
    lines = list(lines)
    used = [head for head in lines[0] if not all(_EMPTY.fullmatch(line[head]) for line in lines)]
    heads = "".join(f'<th scope="col"{_is_number(lines[0][head])}>{escape(head)}</th>' for head in used)
    body = "".join("<tr>" + "".join(line[head] for head in used) + "</tr>" for line in lines)
    kind = ' class="sortable"' if sortable else ""
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="scroll"><table{kind}>{title}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


_EMPTY = re.compile(r"<td[^>]*>(<small></small>)?</td>")


def _is_number(cell: str) -> str:
    return ' class="number"' if cell.startswith('<td class="number"') else ""
