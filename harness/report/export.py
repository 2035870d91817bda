"""A sweep's comparison for papers, pages and model cards: the selected settings, each score with its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.errors import InputError
from harness.figures.findings import caution
from harness.figures.panels import FACET, rows
from harness.figures.style import bytes_text, count_text, rate_text, score_text, seconds_text
from harness.judgement.labels import labelled
from harness.judgement.statistics import aggregate
from harness.judgement.verdicts import compare, is_trained
from harness.report.markup import latex, latex_table, markdown, markdown_table
from harness.results.files import Tables


@dataclass(frozen=True)
class Exhibit:
    """The comparison on one task and model, as text that is not escaped yet."""

    task: str
    model: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    """What the score is, what its intervals cover, and which rows have none."""


def exhibits(tables: Tables) -> list[Exhibit]:
    """One per task and model, best first; columns that are empty in every row are left out.

    Raises :class:`InputError` if no trial ended well.
    """
    chosen = aggregate(tables)
    if chosen.empty:
        raise InputError("no trial of this sweep ended well, so there is nothing to export; see 'tunebench status'")
    groups = chosen.groupby(FACET, dropna=False, sort=False)
    return [_exhibit(str(task), str(model), frame, tables) for (task, model), frame in groups]


def _exhibit(task: str, model: str, frame: pd.DataFrame, tables: Tables) -> Exhibit:
    frame = labelled(frame.reset_index(drop=True))
    higher = bool(frame.higher_is_better.iloc[0])
    frame = frame.sort_values("test_score", ascending=not higher, na_position="last", kind="stable")
    letters = {
        row.trial_ids: word
        for comparison in compare(frame, tables)
        for row, word in zip(rows(comparison.rows), comparison.letters(), strict=True)
        if len(comparison.rows) > 1
    }
    cells = [{head: say(row) for head, say in _COLUMNS.items()} | {_GROUP: letters.get(row.trial_ids, "")}
             for row in rows(frame)]  # fmt: skip
    heads = tuple(head for head in _HEADS if any(cell[head] for cell in cells))
    return Exhibit(
        task, model, heads, tuple(tuple(cell[head] for head in heads) for cell in cells), _note(frame, higher, heads)
    )


def _note(frame: pd.DataFrame, higher: bool, heads: tuple[str, ...]) -> str:
    scored = frame[frame.test_score.notna()]
    if scored.empty:
        return "No row was scored."
    metrics = " and ".join(scored.primary_metric.dropna().unique())
    covered = "; ".join(scored.interval[scored.interval != "none"].unique())
    parts = [
        f"Score: {metrics} on the test split, {'higher' if higher else 'lower'} is better",
        f"95 % intervals cover {covered}" if covered else "no interval is known",
        "the learning rate was chosen on validation" if (scored.settings_tried > 1).any() else "",
        "rows that share a letter cannot be told apart" if _GROUP in heads else "",
        caution(scored) or "",
    ]
    text = ". ".join(part[0].upper() + part[1:] for part in parts if part)
    constant = scored.majority_score.dropna()
    if constant.size:
        text += f". One label for every example scores {score_text(constant.iloc[0])}"
    return f"{text}."


def _score(row: Any) -> str:
    if pd.isna(row.test_score):
        return ""
    if pd.isna(row.ci_low) or pd.isna(row.ci_high):
        return score_text(row.test_score)
    return f"{score_text(row.test_score)} [{score_text(row.ci_low)}, {score_text(row.ci_high)}]"


def _column(name: str, say: Callable[[float], str]) -> Callable[[Any], str]:
    def text(row: Any) -> str:
        value = getattr(row, name)
        return "" if pd.isna(value) else say(value)

    return text


_GROUP = "Group"
_COLUMNS: dict[str, Callable[[Any], str]] = {
    "Method": lambda row: str(row.label),
    "Score": _score,
    "Seeds": _column("seeds", lambda n: f"{n:g}"),
    "Learning rate": _column("learning_rate", rate_text),
    "Trained": _column("trainable_params", count_text),
    "Stored": _column("checkpoint_bytes", bytes_text),
    "Memory": _column("peak_train_bytes", bytes_text),
    "Training": _column("chain_train_s", seconds_text),
}
_TEXTS = ("Method", _GROUP)
_HEADS = ("Method", "Score", _GROUP, *list(_COLUMNS)[2:])


def in_markdown(tables: Tables) -> str:
    """A heading, a table and a note for each task and model."""
    parts = []
    for exhibit in exhibits(tables):
        cells = [[markdown(cell) for cell in row] for row in exhibit.rows]
        parts += [
            f"### {markdown(exhibit.task)} · {markdown(exhibit.model)}\n",
            markdown_table(exhibit.heads, cells, [head for head in exhibit.heads if head not in _TEXTS]),
            f"{markdown(exhibit.note)}\n",
        ]
    return "\n".join(parts)


def in_latex(tables: Tables) -> str:
    """A floating table for each task and model; the document needs T1 fonts, ``booktabs`` and ``textcomp``."""
    parts = [r"% \usepackage[T1]{fontenc} \usepackage{booktabs,textcomp}" + "\n"]
    for number, exhibit in enumerate(exhibits(tables), 1):
        columns = "".join("l" if head in _TEXTS else "r" for head in exhibit.heads)
        cells = [[_guarded(latex(cell)) for cell in row] for row in exhibit.rows]
        title = f"{exhibit.task} · {exhibit.model}. {exhibit.note}"
        parts.append(
            "\\begin{table}\n\\centering\n"
            f"\\caption{{{latex(title)}}}\n\\label{{tab:tunebench-{number}}}\n"
            f"{latex_table([latex(head) for head in exhibit.heads], cells, columns)}\\end{{table}}\n"
        )
    return "\n".join(parts)


def _guarded(cell: str) -> str:
    """A cell; one that begins with a bracket or a star would be read as an argument of the line break before it."""
    return f"{{{cell}}}" if cell[:1] in ("[", "*") else cell


def in_model_card(tables: Tables) -> str:
    """Front matter for a model card: the hub's ``model-index``, with an entry per scored row.

    Who uploads one of the models keeps its entry. Intervals are ``args`` of their metric, for the index has no place of
    its own for them. Raises :class:`InputError` where nothing was scored.
    """
    from huggingface_hub.repocard_data import ModelCardData

    index = [entry for result in _results(tables) for entry in result]
    if not index:
        raise InputError("no row of this sweep has a test score, so there is nothing for a model card")
    data = ModelCardData(tags=["tunebench"])
    return f"---\n{data.to_yaml()}\n{_index_yaml(index)}---\n"


def _index_yaml(index: list[dict[str, Any]]) -> str:
    import yaml

    return str(yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True))


def _results(tables: Tables) -> Iterator[list[dict[str, Any]]]:
    from huggingface_hub.repocard_data import eval_results_to_model_index

    chosen = aggregate(tables)
    seen: dict[str, int] = {}
    for _, group in chosen.groupby(FACET, dropna=False, sort=False):
        for row in rows(labelled(group.reset_index(drop=True))):
            if pd.isna(row.test_score):
                continue
            name = f"{row.model} {row.label}{'' if is_trained(row) else ' (untrained)'} on {row.task}"
            seen[name] = seen.get(name, 0) + 1
            unique = name if seen[name] == 1 else f"{name} #{seen[name]}"
            yield eval_results_to_model_index(unique, [_result(row)])


def _result(row: Any) -> Any:
    from huggingface_hub import EvalResult

    known = {
        "ci_low": row.ci_low,
        "ci_high": row.ci_high,
        "interval": f"95 %, {row.interval}" if row.interval != "none" else None,
        "seeds": int(row.seeds),
        "settings_tried": int(row.settings_tried),
        "learning_rate": row.learning_rate,
        "higher_is_better": bool(row.higher_is_better),
    }
    return EvalResult(
        task_type=_HUB_TASKS.get(row.task_kind, "other"),
        dataset_type=str(row.task),
        dataset_name=str(row.task),
        dataset_split="test",
        dataset_revision=None if pd.isna(row.task_version) else str(row.task_version),
        metric_type=str(row.primary_metric),
        metric_name=str(row.primary_metric),
        metric_value=round(float(row.test_score), 6),
        metric_args={
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in known.items()
            if value is not None and not pd.isna(value)
        },
    )


_HUB_TASKS = {
    "classification": "text-classification",
    "multiple_choice": "multiple-choice",
    "generation": "text-generation",
    "corpus": "text-generation",
}
