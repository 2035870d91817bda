"""What ``tunebench show`` prints about a task, a model or a trial: lines for people, a document for programs.

Data, answers and reasons are shown as text: control characters, such as those that move a terminal's cursor, as their
escapes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.results.record import Record
    from harness.tasks.overview import Overview, Part

#: The models that read a task's examples unless others are named.
_READERS = ("minilm-l6-22m", "smollm2-135m")
#: A longer text is shown with its middle left out.
_LONGEST = 1500
_ANSWERS = 3
_BARS = "▁▂▃▄▅▆▇█"
_WIDEST = 60


@dataclass(frozen=True)
class Shown:
    """One thing, for people and for programs."""

    lines: Sequence[str]
    document: Mapping[str, Any]


def plain(text: object) -> str:
    """``text`` with control characters other than line breaks and tabs as escapes; the middle of a long one is cut."""
    whole = str(text)
    if len(whole) > _LONGEST:
        half = _LONGEST // 2
        whole = f"{whole[:half]} … {len(whole) - 2 * half} characters … {whole[-half:]}"
    return "".join(_escape(sign) if _steers(sign) else sign for sign in whole)


def _steers(sign: str) -> bool:
    """Whether a character may move the cursor or turn the direction of writing."""
    turns = "\u202a" <= sign <= "\u202e" or "\u2066" <= sign <= "\u2069"
    return turns or (sign not in "\n\t" and unicodedata.category(sign) in ("Cc", "Cs"))


def _escape(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")


def _facts(pairs: Mapping[str, object]) -> Iterator[str]:
    """A line for each fact that is known."""
    known = {name: plain(value).replace("\n", " ") for name, value in pairs.items() if value not in (None, "", ())}
    width = max(map(len, known), default=0)
    return (f"{name.ljust(width)}  {value}" for name, value in known.items())


def _indented(title: str, text: str) -> Iterator[str]:
    yield f"  {title}:"
    yield from (f"    | {line}" for line in plain(text).split("\n"))


# --- a task ----------------------------------------------------------------------------------------------------------


def of_task(name: str, models: Sequence[str] | None, max_length: int) -> Shown:
    """A task's data, with examples as the ``models`` read them.

    Raises :class:`harness.errors.InputError` for what ``tunebench run`` would refuse too.
    """
    from harness.tasks.overview import overview

    task = overview(name)
    readings, notes = _readings(task, models, max_length)
    return Shown([*_task_lines(task), *_example_lines(task, readings), *notes], _task_document(task, readings, notes))


_READ_BY_ENCODERS = ("classification", "regression")

_Readings = Mapping[str, Sequence[Sequence["Part"]]]


def _readings(task: Overview, models: Sequence[str] | None, max_length: int) -> tuple[_Readings, list[str]]:
    """Model -> for each example, the parts that it reads; and why a model reads none."""
    from harness.models.facts import is_here
    from harness.models.spec import load_spec

    readings: dict[str, list[Sequence[Part]]] = {}
    notes = []
    for name in models or _READERS:
        spec = load_spec(name)
        if spec.kind == "encoder" and task.spec.kind not in _READ_BY_ENCODERS:
            if models:
                notes.append(f"{name} is an encoder, which reads {' and '.join(_READ_BY_ENCODERS)} tasks alone")
        elif spec.is_random or not is_here(spec):
            notes.append(f"{name} is not in the cache, so its reading is not shown ('tunebench fetch SWEEP' brings it)")
        else:
            readings[name] = _read(spec.address, spec.kind, task, max_length)
    return readings, notes


def _read(model: str, kind: str, task: Overview, max_length: int) -> list[Sequence[Part]]:
    """The parts that a model reads of each example."""
    from harness.models.load import load_tokenizer
    from harness.tasks.overview import read_by_decoder, read_by_encoder

    tokenizer = load_tokenizer(model)
    if kind == "encoder":
        return [read_by_encoder(tokenizer, example, max_length) for example in task.examples]
    return [read_by_decoder(tokenizer, task.spec, example, max_length) for example in task.examples]


def _task_lines(task: Overview) -> Iterator[str]:
    spec = task.spec
    yield from _facts(
        {
            "task": spec.name,
            "kind": spec.kind,
            "taken for": spec.taken_for,
            "description": spec.description,
            "file": spec.file,
            "source": task.source,
            "version": task.version,
            "language": spec.language,
            "licence": spec.license.data if spec.license else None,
            "citation": spec.citation,
            "notes": spec.notes,
            "splits": ", ".join(f"{split} {size}" for split, size in task.sizes.items()),
            "metrics": "; ".join(task.metrics),
        }
    )
    yield from (f"left out  {plain(line)}" for line in task.left_out)
    yield from (f"remark    {plain(line)}" for line in task.remarks)
    if task.labels:
        yield ""
        yield from _columns(
            ("label", "word", *task.sizes),
            [(key, spec.labels[key], *counts.values()) for key, counts in task.labels.items()],
        )
    if task.numbers:
        yield ""
        yield from _columns(
            ("numbers", *next(iter(task.numbers.values()))),
            [(split, *(f"{one:.6g}" for one in spread.values())) for split, spread in task.numbers.items()],
        )
    if task.majority is not None:
        label, accuracy = task.majority
        yield f"always answering '{plain(label)}' scores {accuracy:.3f} in accuracy on test"


def _columns(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    cells = [list(header), *([plain(cell).replace("\n", " ") for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)


def _example_lines(task: Overview, readings: _Readings) -> Iterator[str]:
    for number, example in enumerate(task.examples):
        yield ""
        yield f"example {number + 1} of training"
        if not readings:
            yield from _indented("prompt", example.prompt)
            yield from _indented("answer", example.completion)
        for model, read in readings.items():
            for part in read[number]:
                yield from _indented(f"{model} reads as {part.name}, {len(part.ids)} tokens", part.shown)


def _task_document(task: Overview, readings: _Readings, notes: Sequence[str]) -> dict[str, Any]:
    spec = task.spec
    return {
        "what": "task",
        **spec.model_dump(mode="json", include={"name", "kind", "description", "language", "citation", "notes"}),
        "taken_for": spec.taken_for,
        "license": spec.license.data if spec.license else None,
        "file": None if spec.file is None else str(spec.file),
        "source": task.source,
        "version": task.version,
        "splits": task.sizes,
        "left_out": list(task.left_out),
        "remarks": list(task.remarks),
        "labels": task.labels,
        "numbers": task.numbers,
        "majority": None if task.majority is None else {"label": task.majority[0], "accuracy": task.majority[1]},
        "primary_metric": spec.primary_metric,
        "metrics": list(spec.metrics),
        "examples": [
            {
                "prompt": example.prompt,
                "text": example.text,
                "references": list(example.references),
                "rejected": example.rejected,
                "read": {model: [asdict(part) for part in read[number]] for model, read in readings.items()},
            }
            for number, example in enumerate(task.examples)
        ],
        "notes_on_reading": list(notes),
    }


# --- a model ---------------------------------------------------------------------------------------------------------


def of_model(name: str) -> Shown:
    """A model's facts. Raises :class:`harness.errors.InputError` for a name or folder that is none."""
    from harness.models.facts import facts
    from harness.models.spec import load_spec

    model = facts(load_spec(name))
    lines = _facts(
        {
            "model": model.name,
            "kind": model.kind,
            "family": model.family,
            "architecture": model.architecture,
            "description": model.description,
            "parameters": None if model.params is None else f"{model.params:,}",
            "layers": model.layers,
            "context": None if model.context is None else f"{model.context:,} tokens",
            "licence": model.license,
            "source": model.source,
            "revision": model.revision,
            "on this machine": "yes" if model.is_here else "no; 'tunebench fetch SWEEP' brings it",
            "note": model.note,
            "methods": ", ".join(model.methods),
        }
    )
    more = f"memory: tunebench estimate {name} --method all --memory 24GB"
    return Shown([*lines, more], {"what": "model", **asdict(model)})


# --- a trial ---------------------------------------------------------------------------------------------------------


def of_trial(folder: Path) -> Shown:
    """A trial's specification, ending, scores, curves and some answers.

    Raises :class:`harness.errors.InputError` for a folder or a record that cannot be read.
    """
    from harness.files import NOTEBOOK_FILE, RECORD_FILE
    from harness.ledger.ledger import Ledger
    from harness.ledger.records import read_record

    record = read_record(folder / RECORD_FILE)
    trial = Ledger.of_trial(folder.absolute())[0].plan.rows[0].trial if record is None else record.trial
    notebook = folder / NOTEBOOK_FILE
    tables = record.outcome.tables if record is not None and record.outcome is not None else {}
    document = {
        "what": "trial",
        "trial_id": trial.trial_id,
        "trial": trial.model_dump(mode="json"),
        "status": None if record is None else record.status,
        "reason": None if record is None else record.reason,
        "columns": record.outcome.columns if record is not None and record.outcome is not None else {},
        "tables": {name: tables.get(name, []) for name in ("scores", "curves", "generations")},
        "notebook": str(notebook) if notebook.is_file() else None,
    }
    arguments = {**trial.method_args, **trial.objective_args}
    lines = [
        *_facts(
            {
                "trial": trial.trial_id,
                "method": trial.method,
                "objective": trial.objective,
                "arguments": ", ".join(f"{name}={value}" for name, value in arguments.items()),
                "model": trial.model,
                "task": trial.task,
                "seed": trial.seed,
                "learning rate": trial.learning_rate,
                "budget": ", ".join(f"{name}={value}" for name, value in trial.budget.model_dump().items()),
                "ended": _ending(record),
                "reason": None if record is None else record.reason,
                "notebook": document["notebook"],
            }
        ),
        *_measured_lines(tables),
    ]
    return Shown(lines, document)


def _ending(record: Record | None) -> str:
    if record is None:
        return "not yet"
    took = "" if record.duration_s is None else f" after {record.duration_s:.0f} s"
    return f"{record.status}{took}"


def _measured_lines(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    scores = tables.get("scores", ())
    if scores:
        yield ""
        rows = [[_number(row.get(name)) for name in ("split", "metric", "value", "stderr", "n")] for row in scores]
        yield from _columns(("split", "metric", "value", "± stderr", "n"), rows)
    curves: dict[tuple[str, str], list[float]] = {}
    for row in tables.get("curves", ()):
        if row.get("value") is not None:
            curves.setdefault((str(row.get("split")), str(row.get("metric"))), []).append(float(row["value"]))
    if curves:
        yield ""
        yield from _columns(
            ("curve", "", "first", "last", ""),
            [(*name, _number(values[0]), _number(values[-1]), sparkline(values)) for name, values in curves.items()],
        )
    for number, row in enumerate(tables.get("generations", ())[:_ANSWERS]):
        yield ""
        yield f"answer {number + 1}"
        for name in ("prompt", "output", "reference"):
            yield from _indented(name, str(row.get(name, "")))


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str("" if value is None else value)


def sparkline(values: Sequence[float]) -> str:
    """A curve as one line of bars, at most 60 of them."""
    step = max(len(values) / _WIDEST, 1)
    chosen = [values[int(place * step)] for place in range(min(len(values), _WIDEST))]
    low, high = min(chosen), max(chosen)
    return "".join(
        _BARS[round((value - low) / (high - low) * (len(_BARS) - 1)) if high > low else 0] for value in chosen
    )
