"""What the embedded models score on a task before any training, as a committed table (``zero_shot.csv``).

``python benchmarks/tasks.py --zero-shot`` measures what the table lacks, a task after the other, so that it may be
interrupted; ``docs/tasks.md`` is made from the table. The encoder classifies alone: by the likeness of a text and the
words of a label.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from harness.errors import InputError
from harness.files import write_atomically
from harness.models.spec import load_spec as load_model
from harness.tasks import check
from harness.tasks.spec import TaskSpec, load_spec, names
from harness.trial import Budget

TABLE = Path(__file__).with_name("zero_shot.csv")
MODELS = ("minilm-l6-22m", "smollm2-135m", "gemma3-270m")
#: A text is cut as in a sweep with this ``max_length``.
BUDGET = Budget(train_examples=1, eval_examples=60, max_length=384)


@dataclass(frozen=True)
class ZeroShot:
    """One row: the primary metric of a model as it comes, on the first test examples of a task."""

    task: str
    task_version: str
    model: str
    model_revision: str
    metric: str
    examples: str
    """How many were scored."""
    max_length: str
    score: str
    """Empty where the metric has no value for these answers."""
    stderr: str

    def __str__(self) -> str:
        """The score and its standard error, as a cell of the page."""
        if not self.score:
            return "no value"
        score = float(self.score)
        digits = 3 if abs(score) < 10 else 1
        return f"{score:.{digits}f}" + (f" ± {float(self.stderr):.{digits}f}" if self.stderr else "")


#: Task and model.
Key = tuple[str, str]


def read(table: Path = TABLE) -> dict[Key, ZeroShot]:
    """The rows of ``table``; empty without that file."""
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8") as stream:
        return {(row["task"], row["model"]): ZeroShot(**row) for row in csv.DictReader(stream)}


def write(rows: Iterable[ZeroShot], table: Path = TABLE) -> None:
    """``table`` from ``rows``, by task and model."""
    lines = [",".join(field.name for field in fields(ZeroShot))]
    lines += [",".join(asdict(row).values()) for row in sorted(rows, key=lambda row: (row.task, row.model))]
    write_atomically(table, "\n".join(lines) + "\n")


def can_answer(model: str, spec: TaskSpec) -> bool:
    """Whether an untrained ``model`` has an answer to a task."""
    return load_model(model).kind != "encoder" or spec.kind == "classification"


def lacking(known: Collection[ZeroShot]) -> Iterator[Key]:
    """Tasks whose data is on this machine, and the models that have no row of their present version."""
    versions = {(row.task, row.model): row.task_version for row in known}
    for name in names():
        spec = load_spec(name)
        if check.is_here(spec):
            for model in MODELS:
                if can_answer(model, spec) and versions.get((name, model)) != spec.full_version():
                    yield name, model


def measure(table: Path = TABLE) -> None:
    """Add to ``table`` the rows that it lacks; each is written as soon as it is known."""
    for task, model in list(lacking(read(table).values())):
        try:
            row = measured(task, model)
        except InputError as error:
            print(f"{task}, {model}: {error}", file=sys.stderr)
            continue
        print(f"{task}, {model}: {row.metric} {row}, {row.examples} examples", flush=True)
        write({**read(table), (task, model): row}.values(), table)


def measured(task: str, model: str) -> ZeroShot:
    """Score ``model`` on ``task``, as the baseline of a sweep with :data:`BUDGET`."""
    from harness import methods
    from harness.models import load as models
    from harness.tasks import data
    from harness.tasks.evaluate import evaluate

    opened = data.load(task, BUDGET)
    base = models.load(model, labels=opened.head_words)
    score = evaluate(methods.apply("baseline", base), opened, "test", BUDGET.max_length).primary
    value, stderr = ("" if number is None else f"{number:.6g}" for number in (score.value, score.stderr))
    revision = base.spec.revision() or ""
    version = load_spec(task).full_version()
    return ZeroShot(task, version, model, revision, score.metric, str(score.n), str(BUDGET.max_length), value, stderr)
