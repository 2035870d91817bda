"""A task as data: one YAML file says where the rows are, how a row becomes an example, and how answers are scored.

Nothing here imports torch or opens data; :mod:`harness.tasks.data` opens it.
"""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from harness import specfile
from harness.catalog import TaskKind
from harness.errors import InputError, unknown
from harness.sources import fetch, own_files
from harness.sources.fetch import LocalSource, Source
from harness.tasks.metrics import METRICS, metric_info
from harness.trial import Frozen

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
}

_DEFAULT_METRICS: dict[str | None, tuple[str, ...]] = {
    "classification": ("accuracy", "macro_f1"),
    "generation": ("rouge_l", "exact_match"),
    "preference": ("accuracy", "rouge_l"),
    "corpus": ("perplexity",),
}


#: What many rows of the usual instruction sets lack: 60 % of Alpaca's have no input, two thirds of Dolly's no context.
_USUALLY_EMPTY = frozenset(("input", "context", "system"))


def placeholders(template: str) -> tuple[str, ...]:
    """Names of the fields in a template.

    Only plain ``{field}`` is allowed (``{{`` and ``}}`` are braces), so a template cannot reach into objects. Raises
    ValueError for anything else.
    """
    names = []
    for _, name, format_spec, conversion in Formatter().parse(template):
        if name is None:
            continue
        if not name.isidentifier() or format_spec or conversion:
            raise ValueError(f"'{{{name}}}': a template holds only plain fields such as {{question}}")
        names.append(name)
    return tuple(names)


def _template(value: str) -> str:
    placeholders(value)
    return value


def _expression(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"'{value}' is not a regular expression: {error}") from error
    return value


Template = Annotated[str, AfterValidator(_template)]
Expression = Annotated[str, AfterValidator(_expression)]


class License(Frozen):
    """The licence of the package, and that of the data in it."""

    data: str
    package: str | None = Field(None, description="null when the data does not come from a package")


class Reader(Frozen):
    """How a file becomes rows of named fields."""

    format: Literal["csv", "tsv", "json", "jsonl", "lines", "parquet", "arrow"] | None = Field(
        None,
        description="null: told by the file's ending. 'arrow' is an Arrow stream; '.gz' files are read as they are",
    )
    file: str | None = Field(None, description="file that splits without one of their own are drawn from")
    encoding: str = "utf-8"
    skip_lines: int = Field(0, ge=0, description="lines to leave out at the start of a text format")
    columns: tuple[str, ...] = Field((), description="names of the columns of a CSV or TSV file without a header")
    quotes: bool | None = Field(
        None,
        description="whether double quotes enclose values; null: in CSV files, and in TSV files whose form shows it",
    )
    pattern: Expression | None = Field(None, description="'lines': expression whose named groups are the fields")
    missing: tuple[str, ...] = Field(
        ("nan", "NaN", "NaT", "None", "<NA>"),
        description="texts that stand for a missing value, unless they are a label; null, None and NaN always do",
    )
    max_left_out: float = Field(
        0.1, ge=0, le=1, description="share of a file's rows that may be left out; beyond it, nothing is planned or run"
    )

    @model_validator(mode="after")
    def _lines_need_a_pattern(self) -> Self:
        if (self.format == "lines") != (self.pattern is not None):
            raise ValueError("'pattern' belongs to format 'lines', and that format needs it")
        return self


class Splits(Frozen):
    """Each split is a file (an official split), or a number of inputs drawn from the pool.

    The pool is ``reader.file``, or else the training file. Inputs are put in the order of a hash of their text and
    ``split_seed``, so the draw depends neither on the order of the file nor on any random generator.
    """

    train: int | str | None = Field(None, description="null: everything that validation and test leave")
    validation: int | str
    test: int | str

    @model_validator(mode="after")
    def _positive(self) -> Self:
        for name in ("train", "validation", "test"):
            size = getattr(self, name)
            if isinstance(size, int) and size <= 0:
                raise ValueError(f"{name}: {size} is not a number of inputs above 0")
        return self


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
    fields: dict[str, str] = Field(default_factory=dict, description="new name -> column")
    extract: dict[str, Expression] = Field(
        default_factory=dict, description="field -> expression whose named groups become fields"
    )
    prompt: Template = Field(description="what a decoder reads, such as 'Question: {question}\\nType:'")
    text: Template | None = Field(None, description="what an encoder's head reads; null: the prompt")
    completion: Template = Field("{label_word}", description="what should follow the prompt, without outer spaces")
    rejected: Template | None = Field(None, description="preference: the worse completion")
    label: str | None = Field(None, description="classification: the field with the label's key")
    labels: dict[str, str] = Field(
        default_factory=dict, description="label's key in the data -> word that stands for it"
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
    max_new_tokens: int = Field(32, gt=0, description="tokens to generate at most")

    _file: Path | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name in self.metrics:
            metric_info(name)
        if self.primary_metric not in self.metrics:
            raise unknown("primary_metric", self.primary_metric, self.metrics)
        if self.kind == "classification":
            if self.label is None or len(self.labels) < 2:
                raise ValueError("a classification task needs 'label' (a field) and at least two 'labels'")
            if len(set(self.labels.values())) < len(self.labels):
                raise ValueError("labels: two labels have the same word")
        elif "label_word" in self.used_fields:
            raise ValueError("completion: a task without labels needs one, such as '{answer}'")
        if self.answer_pattern is not None and re.compile(self.answer_pattern).groups < 1:
            raise ValueError("answer_pattern: put the part that is scored in parentheses")
        if (self.kind == "preference") != (self.rejected is not None):
            raise ValueError("'rejected' belongs to kind 'preference', and that kind needs it")
        self._check_fields()
        splits = (self.splits.train, self.splits.validation, self.splits.test)
        drawn = any(not isinstance(split, str) for split in splits)
        if drawn and self.pool_file is None and not isinstance(self.source, LocalSource):
            raise ValueError("reader: 'file' is missing; the splits are drawn from it")
        return self

    def _check_fields(self) -> None:
        for name in self.cluster:
            if name not in self.used_fields:
                raise unknown("cluster", name, self.used_fields)
        for name in self.optional or ():
            if name not in self.used_fields:
                raise unknown("optional", name, self.used_fields)
            if name == self.label:
                raise ValueError(f"optional: '{name}' is the label, and every row needs one")
        if self.references is not None and (
            self.kind != "generation" or self.references not in placeholders(self.completion)
        ):
            raise ValueError(f"references: '{self.references}' must be a field in the completion of a generation task")

    @property
    def file(self) -> Path | None:
        """Absolute path of the user's own YAML file; None for a task of the package."""
        return self._file

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
            splits = (self.splits.train, self.splits.validation, self.splits.test)
            names = {split for split in splits if isinstance(split, str)}
            if len(names) < len(splits):
                names.add(self.pool_file or ".")
            files += [(name, root / name if name != "." else root) for name in names]
        try:
            return f"{self.version}+{own_files.digest(files)}"
        except OSError as error:
            raise InputError(f"task '{self.name}': {error.filename}: cannot be read: {error.strerror}") from error

    @property
    def higher_is_better(self) -> bool:
        """Direction of the primary metric."""
        return METRICS[self.primary_metric].higher_is_better

    def scored_part(self, answer: str) -> str:
        """The scored part of an answer: all of it, or the last match of ``answer_pattern`` (empty if there is none).

        Commas between thousands are removed from a match: 1,234 is 1234. Every reference has a match, as the reader of
        the rows ensures, so an answer without one is wrong.
        """
        if self.answer_pattern is None:
            return answer
        matches = list(re.finditer(self.answer_pattern, answer))
        return re.sub(r"(?<=\d),(?=\d{3})", "", (matches[-1].group(1) or "").strip()) if matches else ""

    @property
    def input_fields(self) -> tuple[str, ...]:
        """Fields that make up an input."""
        return self.input or placeholders(self.prompt)

    @property
    def used_fields(self) -> frozenset[str]:
        """Every field that an example needs; a row with an empty one is left out, unless that field may be empty."""
        templates = (self.prompt, self.text, self.completion, self.rejected)
        names = {name for template in templates if template for name in placeholders(template)}
        names |= {*self.input_fields, *([self.label] if self.label else [])}
        return frozenset(names - {"label_word"} if self.kind == "classification" else names)

    @property
    def may_be_empty(self) -> frozenset[str]:
        """The used fields that may be missing or empty."""
        if self.optional is not None:
            return frozenset(self.optional)
        return _USUALLY_EMPTY & self.used_fields if "instruction" in self.used_fields else frozenset()

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


def load_spec(name: str) -> TaskSpec:
    """The task called ``name``, or the one in a YAML file when ``name`` is a path to one.

    In a user's own file, a relative ``local`` source is relative to that file. Raises
    :class:`harness.errors.InputError` for an unknown name (with the nearest one) and for a mistake in the file.
    """
    if own_files.is_task_path(name):
        path = Path(name).expanduser()
        if not path.is_file():
            raise InputError(f"task: there is no file '{name}'")
        spec = specfile.read(TaskSpec, path)
        fetch.check_own(spec.source, str(path))
        if isinstance(spec.source, LocalSource):
            local = LocalSource(local=str(path.resolve().parent / Path(spec.source.local).expanduser()))
            spec = spec.model_copy(update={"source": local})
        spec._file = own_files.absolute(path)
        return spec
    if name not in names():
        raise unknown("task", name, names())
    return specfile.read(TaskSpec, Path(__file__).parent / f"{name}.yaml")
