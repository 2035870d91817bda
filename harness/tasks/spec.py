"""A task as data: one YAML file says where the rows are, how a row becomes an example, and how answers are scored.

Nothing here imports torch or opens data; :mod:`harness.tasks.data` opens it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from harness import specfile
from harness.catalog import TaskKind
from harness.errors import InputError, unknown
from harness.sources import fetch, own_files
from harness.sources.fetch import LocalSource, Source
from harness.tasks import auto, choices, mistakes, sql, text_files
from harness.tasks.encodings import check_regular
from harness.tasks.joined import Join
from harness.tasks.keys import in_one_form
from harness.tasks.metrics import METRICS
from harness.tasks.reader import Reader
from harness.tasks.templates import FILLED_IN, Expression, Template, placeholders
from harness.trial import Frozen

_DEFAULT_METRICS: dict[str | None, tuple[str, ...]] = {
    "classification": ("accuracy", "macro_f1"),
    "regression": ("pearson", "spearman", "mse", "numeric_answers"),
    "multiple_choice": ("accuracy", "accuracy_norm"),
    "generation": ("rouge_l", "exact_match"),
    "cloze": ("cloze_accuracy", "cloze_perplexity"),
    "preference": ("accuracy", "rouge_l"),
    "corpus": ("perplexity", "bits_per_byte"),
}


def _default_prompt(given: dict[str, Any]) -> str:
    """The prompt of a task that writes none: only a dialogue has one."""
    return "{history}" if given.get("dialogue") and given.get("kind") not in FILLED_IN else ""


def _default_completion(given: dict[str, Any]) -> str:
    """The completion of a task that writes none."""
    kind = given.get("kind")
    if given.get("dialogue") and kind not in FILLED_IN:
        return "{answer}"
    return "{text}" if kind == "corpus" else f"{{{FILLED_IN.get(kind or '', 'label_word')}}}"


#: What many rows of the usual instruction sets lack: 60 % of Alpaca's have no input, two thirds of Dolly's no context.
_USUALLY_EMPTY = frozenset(("input", "context", "system"))


class License(Frozen):
    """The licence of the package, and that of the data in it."""

    data: str
    package: str | None = Field(None, description="null when the data does not come from a package")


class Splits(Frozen):
    """Each split is a file (an official split), or a number of inputs drawn from the pool.

    The pool is ``reader.file``, or else the training file. Inputs are put in the order of a hash of their text and
    ``split_seed``, so the draw depends neither on the order of the file nor on any random generator. Of a
    classification, what is drawn holds every label in proportion (:mod:`harness.tasks.stratify`).
    """

    train: int | str | None = Field(None, description="null: everything that validation and test leave")
    validation: int | str
    test: int | str

    @field_validator("train", "validation", "test", mode="before")
    @classmethod
    def _no_share(cls, size: Any) -> Any:
        if isinstance(size, (float, bool)) or (isinstance(size, str) and re.fullmatch(r"[\d.]+ *%?", size)):
            raise ValueError("give the number of inputs to draw, such as 100, or the name of a file; no share")
        return size

    @model_validator(mode="after")
    def _positive(self) -> Self:
        for name in ("train", "validation", "test"):
            size = getattr(self, name)
            if isinstance(size, int) and size <= 0:
                raise ValueError(f"{name}: {size} is not a number of inputs above 0")
        files = [size for size in (self.train, self.validation, self.test) if isinstance(size, str)]
        if len({file.removeprefix("./") for file in files}) < len(files):
            raise ValueError("two splits have the same file; give a number for one of them, and it is drawn")
        return self

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the splits that have one."""
        return tuple(size for size in (self.train, self.validation, self.test) if isinstance(size, str))


class TaskSpec(Frozen):
    """Data, splits and metrics of one task."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    version: int = Field(1, ge=1, description="raised whenever examples, splits or metrics change")
    kind: TaskKind
    description: str = ""
    language: str | None = None
    license: License | None = None
    citation: str | None = None
    notes: str | None = Field(None, description="what a reader of the results has to know about the data")
    source: Source
    reader: Reader = Reader()
    fields: dict[str, str] = Field(
        default_factory=dict,
        description="new name -> column, or a dotted path into a list or object, such as 'answers.text' or 'turns.0'",
    )
    where: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="column -> values; the file's other rows do not belong to the task, and are counted as such",
    )
    dialogue: str | None = Field(
        None,
        description="column with a list of turns (role and content, or from and value); gives the fields 'history', "
        "what stands before the last answer, and 'answer', the default prompt and completion",
    )
    extract: dict[str, Expression] = Field(
        default_factory=dict, description="field -> expression whose named groups become fields"
    )
    join: dict[str, Join] = Field(
        default_factory=dict, description="field with a list, also of lists or objects -> how it becomes one text"
    )
    prompt: Template = Field(
        default_factory=_default_prompt,
        description="what a decoder reads, such as 'Question: {question}\\nType:'; only dialogues and corpora have a "
        "default",
    )
    text: Template | None = Field(None, description="what an encoder's head reads; null: the prompt")
    completion: Template = Field(
        default_factory=_default_completion,
        description="what should follow the prompt, without outer spaces",
    )
    rejected: Template | None = Field(None, description="preference: the worse completion")
    label: str | None = Field(
        None,
        description="classification: the field with the label's key; regression: the field with the number; multiple "
        "choice: the field with the right choice's key, null if the first one is right",
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="label's key in the data -> word that stands for it"
    )
    positive: str | None = Field(
        None, description="classification: the key of the label that the metric f1 is about; null: the last one"
    )
    step: float | None = Field(
        None,
        gt=0,
        description="regression: what a decoder reads and writes are multiples of it, such as 0.2; null: the number "
        "as the data has it. Scores go by the number itself",
    )
    choices: str | tuple[Template, ...] = Field(
        (), description="multiple choice: templates of the answers, or the field with their list"
    )
    choice_keys: str | tuple[str, ...] = Field(
        (),
        description="multiple choice: what 'label' calls the choices, in their order, or the field with that list; "
        "empty: it counts them from 0",
    )
    input: tuple[str, ...] = Field(
        (),
        description="fields that make up an input: equal inputs never stand in two splits; empty: the prompt's fields",
    )
    cluster: tuple[str, ...] = Field(
        (),
        description="fields that several inputs share, such as the passage of several questions: those are one cluster "
        "when a standard error is computed; empty: the input",
    )
    optional: tuple[str, ...] | None = Field(
        None,
        description="fields that may be empty; null: 'input', 'context' and 'system' beside an 'instruction' may",
    )
    references: str | None = Field(
        None, description="generation: field with a list of right answers, each of which fills the completion"
    )
    database: Template | None = Field(
        None,
        description="generation of SQL: what a query runs in, such as '{schema}': a script of SQL, or the path of a "
        "database of SQLite below the source (.sqlite, .sqlite3, .db)",
    )
    splits: Splits
    split_seed: int = 0
    metrics: tuple[str, ...] = Field(
        default_factory=lambda data: _DEFAULT_METRICS.get(data.get("kind"), ()),
        min_length=1,
        description="by default those of the kind",
    )
    primary_metric: str = Field(
        default_factory=lambda data: next(iter(data.get("metrics", ())), ""),
        description="settings are selected on it; the first metric unless it is given",
    )
    answer_pattern: Expression | None = Field(
        None, description="expression whose last match, its group 1, is the part of an answer that is scored"
    )
    max_new_tokens: int = Field(32, gt=0, le=100_000, description="tokens to generate at most")

    _file: Path | None = PrivateAttr(None)
    _taken_for: str | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        mistakes.check(self)
        if len(self.splits.files) < 3 and self.pool_file is None and not isinstance(self.source, LocalSource):
            raise ValueError("reader: 'file' is missing; the splits are drawn from it")
        return self

    @property
    def file(self) -> Path | None:
        """Absolute path of the user's own YAML file; None for a task of the package."""
        return self._file

    @property
    def taken_for(self) -> str | None:
        """What its data was taken for, and by which columns; None where the file writes the kind."""
        return self._taken_for

    @property
    def address(self) -> str:
        """How :func:`load_spec` finds it from any folder: the absolute path of an own file, else the name."""
        return self.name if self._file is None else str(self._file)

    def full_version(self) -> str:
        """The version as text; that of an own task ends in a hash of its files, '1+…'.

        The hash has 12 digits of the SHA-256 of its YAML file and local data. Raises :class:`harness.errors.InputError`
        if the data is missing or unreadable.
        """
        if self._file is None:
            return str(self.version)
        files = [("", self._file)]
        if isinstance(self.source, LocalSource):
            root = fetch.resolve(self.source)
            names = {*self.splits.files, *([self.pool_file or "."] if len(self.splits.files) < 3 else [])}
            for name in names:
                path = root / name if name != "." else root
                if path.is_dir():
                    texts = text_files.below(path)
                    files += [(f"{name}/{text.relative_to(path).as_posix()}", text) for text in texts]
                else:
                    check_regular(path)
                    files.append((name, path))
        try:
            return f"{self.version}+{own_files.digest(files)}"
        except OSError as error:
            raise InputError(f"task '{self.name}': {error.filename}: cannot be read: {error.strerror}") from error

    @property
    def higher_is_better(self) -> bool:
        """Direction of the primary metric."""
        return METRICS[self.primary_metric].higher_is_better

    @property
    def metric_options(self) -> dict[str, str]:
        """What its metrics may need to know beside predictions and references."""
        if not self.labels:
            return {}
        return {"positive": self.labels[self.positive or list(self.labels)[-1]]}

    def number_text(self, number: float) -> str:
        """A number as a decoder reads and writes it: the nearest multiple of :attr:`step`."""
        nearest = number if self.step is None else round(number / self.step) * self.step
        return f"{nearest + 0.0:.12g}"  # no '-0'

    def scored_part(self, answer: str) -> str:
        """The scored part of an answer: all of it, or the last match of ``answer_pattern`` (empty if there is none).

        Commas between thousands are removed from a match: 1,234 is 1234. Every reference has a match, as the reader of
        the rows ensures, so an answer without one is wrong.
        """
        if self.answer_pattern is None:
            return answer
        matches = list(re.finditer(self.answer_pattern, answer))
        return re.sub(r"(?<=\d),(?=\d{3})", "", (matches[-1].group(1) or "").strip()) if matches else ""

    @cached_property
    def input_fields(self) -> tuple[str, ...]:
        """Fields that make up an input."""
        return self.input or placeholders(self.prompt) or (placeholders(self.completion) if self.is_corpus else ())

    @property
    def has_one_answer(self) -> bool:
        """Whether exactly one answer to an input is right."""
        return self.kind in FILLED_IN

    @property
    def is_written(self) -> bool:
        """Whether a language model answers in words of its own, token by token."""
        return self.kind in ("generation", "preference", "regression")

    @property
    def is_corpus(self) -> bool:
        """Whether it is plain text, which is its own input."""
        return self.kind == "corpus"

    @cached_property
    def used_fields(self) -> frozenset[str]:
        """Every field that an example needs; a row with an empty one is left out, unless that field may be empty."""
        templates = (self.prompt, self.text, self.completion, self.rejected, self.database)
        names = {name for template in templates if template for name in placeholders(template)}
        names |= {*self.input_fields, *([self.label] if self.label else []), *choices.template_fields(self)}
        return frozenset(names - {FILLED_IN.get(self.kind)})

    @cached_property
    def may_be_empty(self) -> frozenset[str]:
        """The used fields that may be missing or empty."""
        if self.optional is not None:
            return frozenset(self.optional)
        return _USUALLY_EMPTY & self.used_fields if "instruction" in self.used_fields else frozenset()

    def database_of(self, row: Mapping[str, str]) -> str:
        """The database of a row; the path of a file is absolute, and lies below the source."""
        text = (self.database or "").format_map(row)
        if not sql.is_file(text):
            return text
        if Path(text).is_absolute() or ".." in Path(text).parts:
            raise InputError(f"task '{self.name}': database: '{text}' must be a path below the source, without '..'")
        root = fetch.resolve(self.source)
        return str((root.parent if root.is_file() else root) / text)

    @property
    def metrics_of_text(self) -> tuple[str, ...]:
        """The :attr:`metrics` that rate an answer; for pairs, 'accuracy' asks which answer is likelier."""
        return tuple(name for name in self.metrics if self.kind != "preference" or name != "accuracy")

    @property
    def pool_file(self) -> str | None:
        """The file to draw splits from if they have none of their own; None: the source is itself a file."""
        return self.reader.file or (self.splits.train if isinstance(self.splits.train, str) else None)


def names() -> tuple[str, ...]:
    """Names of the tasks of the package."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.yaml")))


def _in_one_form(document: Any) -> Any:
    """A task's document with its words in the form in which rows name their columns; paths stay as they are."""
    paths = ("source", "reader", "splits")
    if not isinstance(document, dict):
        return document
    return {key: value if key in paths else in_one_form(value) for key, value in document.items()}


def load_spec(name: str) -> TaskSpec:
    """The task called ``name``, or the one in a YAML file when ``name`` is a path to one.

    In a user's own file, a relative ``local`` source is relative to that file, and the data tells a kind that is
    missing or ``auto`` (:mod:`harness.tasks.auto`). Raises :class:`harness.errors.InputError` for an unknown name (with
    the nearest one) and for a mistake in the file.
    """
    if own_files.is_task_path(name):
        path = Path(name).expanduser()
        if not path.is_file():
            raise InputError(f"task: there is no file '{name}'")
        told: list[str] = []
        spec = specfile.read(TaskSpec, path, lambda document: auto.filled(path, _in_one_form(document), told.append))
        fetch.check_own(spec.source, str(path))
        if isinstance(spec.source, LocalSource):
            local = LocalSource(local=str(path.resolve().parent / Path(spec.source.local).expanduser()))
            spec = spec.model_copy(update={"source": local})
        spec._file = own_files.absolute(path)
        spec._taken_for = next(iter(told), None)
        return spec
    if name not in names():
        raise unknown("task", name, names())
    return specfile.read(TaskSpec, Path(__file__).parent / f"{name}.yaml")
