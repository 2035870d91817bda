"""From a task's specification to its examples.

What protects a comparison here:

- *No leak.* Rows with the same input (white space and case aside) are one group, and a group stands in one split only;
  where official splits share an input, test keeps it, then validation.
- *No chance.* Groups are ordered by a hash of their input and the task's split seed. Validation and test are the same
  for every seed and method; the training examples and their order follow from task and seed alone. Of classification,
  whatever is cut (a split that is drawn, a budget) holds every label in proportion (:mod:`harness.tasks.stratify`), and
  what a smaller budget cuts is the beginning of what a larger one does.
- *Nothing lost in silence.* Rows that are left out or repeat others are counted, with their reason and first line.
- *Fair references.* Where an input has several outputs, each is a training example, and all are references of one
  evaluation example (of a preference task, each pair is judged). A classification input that is given twice keeps its
  first label.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.catalog import TaskKind
from harness.errors import InputError
from harness.sources import fetch
from harness.tasks import choices
from harness.tasks.read import Row
from harness.tasks.scale import Scale
from harness.tasks.spec import TaskSpec, load_spec
from harness.tasks.stratify import stratified
from harness.tasks.templates import FILLED_IN
from harness.tasks.usable import Notice, UsableRow, notices, usable_rows
from harness.trial import Budget


@dataclass(frozen=True)
class Example:
    """One input and the answer that should follow it."""

    prompt: str
    """The text that a decoder reads."""
    text: str
    """The text that an encoder's head reads: the input without instructions."""
    completion: str
    """The text that should follow the prompt, without outer spaces; in a preference, the better answer."""
    references: tuple[str, ...]
    """All right answers; the first is the completion."""
    label: int | None
    """Index of the class or of the right choice; None for free answers."""
    rejected: str | None
    """The worse answer; None outside preference tasks."""
    fields: Mapping[str, str]
    """The row of the example, or the first of several rows with the same input."""
    candidates: tuple[str, ...] = ()
    """The completion with each label or choice, by index; empty for free answers."""
    source: str | None = None
    """The text it came from: examples that share it form one cluster. None: no text but its own."""
    target: float | None = None
    """The right number; None outside regression."""


@dataclass(frozen=True)
class TaskData:
    """The splits of one task, cut to a budget."""

    spec: TaskSpec
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    notices: tuple[Notice, ...] = ()
    """Notices about rows that were left out or repeat others."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """One line for each file and reason with rows that were left out."""
        return tuple(str(notice) for notice in self.notices if notice.lost)

    @property
    def kind(self) -> TaskKind:
        """classification, regression, multiple_choice, generation, cloze, preference or corpus."""
        return self.spec.kind

    @property
    def label_words(self) -> tuple[str, ...]:
        """Words of the classes, by index; empty outside classification."""
        return tuple(self.spec.labels.values())

    @property
    def head_words(self) -> tuple[str, ...] | None:
        """A word for each output of an encoder's head; None where a head has nothing to learn."""
        return {"classification": self.label_words, "regression": ("number",)}.get(self.kind)

    @cached_property
    def scale(self) -> Scale:
        """Where the numbers of the training examples lie."""
        return Scale.of([example.target for example in self.train if example.target is not None])


def load(name: str, budget: Budget | None = None, seed: int = 0) -> TaskData:
    """The examples of the task called ``name`` (or of a YAML file), fetched if they are not in the cache.

    ``budget`` cuts the training split to its first ``train_examples`` in the order that ``seed`` gives, and the others
    to their first ``eval_examples``; it may shorten the answers. A budget that asks for more gets all there is, with a
    warning. A warning and ``notices`` report the rows that are left out.

    Raises :class:`harness.errors.InputError` if the task is unknown, or if the data is unavailable or does not fit the
    task.
    """
    spec = load_spec(name)
    groups, said = _divide(spec)
    for notice in said:
        if notice.lost:
            warnings.warn(f"task '{spec.name}': {notice}", stacklevel=2)
    train = sorted(
        (example for group in groups["train"] for example in _each_output(spec, group)),
        key=lambda e: _rank(spec.name, str(spec.version), str(seed), e.prompt, e.completion, e.rejected or ""),
    )
    if spec.kind == "classification":
        train = stratified(train, lambda example: example.label)
    validation, test = (
        tuple(example for group in groups[split] for example in _to_score(spec, group))
        for split in ("validation", "test")
    )
    if budget is None:
        return TaskData(spec, tuple(train), validation, test, said)
    if budget.train_examples > len(train) and not spec.is_corpus:  # of a corpus, an example is a block of tokens
        warnings.warn(
            f"task '{spec.name}': the budget allows {budget.train_examples} training examples, there are {len(train)}",
            stacklevel=2,
        )
    if budget.max_new_tokens is not None:
        spec = spec.model_copy(update={"max_new_tokens": budget.max_new_tokens})
    first = slice(budget.eval_examples)
    return TaskData(spec, tuple(train[: budget.train_examples]), validation[first], test[first], said)


def clusters(examples: Sequence[Example]) -> tuple[str, ...] | None:
    """The cluster of each example, for standard errors; None if an example names no source."""
    sources = tuple(example.source for example in examples if example.source is not None)
    return sources if len(sources) == len(examples) else None


def example_ids(examples: Sequence[Example]) -> tuple[str, ...]:
    """An id for each example that follows from its text alone, whatever the split's length and the prompt's examples.

    Twelve hexadecimal digits of the source and six of the whole, so that examples from one source share what stands
    before the hyphen; an example that is given again ends in its number.
    """
    seen: dict[str, int] = {}
    ids = []
    for e in examples:
        source = e.text if e.source is None else e.source
        one = f"{_rank(source).hex()[:12]}-{_rank(e.text, *e.references, e.rejected or '').hex()[:6]}"
        seen[one] = seen.get(one, 0) + 1
        ids.append(one if seen[one] == 1 else f"{one}-{seen[one]}")
    return tuple(ids)


def normalise(text: str) -> str:
    """``text`` in the form that is compared: compatible characters, case and white space made equal."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()


def _rank(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()


# --- rows and groups -------------------------------------------------------------------------------------------------

Group = list[UsableRow]


@dataclass(frozen=True)
class _File:
    """The usable rows of a file, by their input."""

    name: str
    groups: Mapping[str, Group]
    of_rows: int
    notices: tuple[Notice, ...]


def _divide(spec: TaskSpec) -> tuple[dict[str, list[Group]], tuple[Notice, ...]]:
    """The groups of each split, in hash order, and the notices about the rows."""
    root = fetch.resolve(spec.source)
    wanted = {"test": spec.splits.test, "validation": spec.splits.validation, "train": spec.splits.train}
    official = {split: _file(spec, root, file) for split, file in wanted.items() if isinstance(file, str)}
    pool = official.get("train")
    if len(official) < len(wanted) and (pool is None or spec.pool_file != spec.splits.train):
        pool = _file(spec, root, spec.pool_file)
    assert pool is not None  # noqa: S101  (there is a training file, or something to draw from)
    files = {id(file): file for file in (*official.values(), pool)}.values()
    said = [notice for file in files for notice in file.notices]
    taken: dict[str, str] = {}
    divided: dict[str, list[Group]] = {}
    # Files before draws, so that a draw cannot take what an official split holds.
    for split in sorted(wanted, key=lambda s: (s == "train", s not in official)):
        file = official.get(split, pool)
        if split in official:
            # What was drawn from this very file is no loss.
            of_others = {key: other for key, other in taken.items() if other in official or pool is not file}
            said += _shared(file, of_others)
        order = _in_order(spec, file, file.groups.keys() - taken.keys())
        size = wanted[split]
        if isinstance(size, int):
            if size > len(order):
                raise InputError(
                    f"task '{spec.name}': splits.{split}: {size} inputs are asked for, {len(order)} are left"
                    f"{because(said)}"
                )
            order = order[:size]
        taken |= dict.fromkeys(order, split)
        divided[split] = [file.groups[key] for key in order]
    for split, groups in divided.items():
        if not groups:
            raise InputError(f"task '{spec.name}': splits.{split}: no input is left for it{because(said)}")
    return divided, tuple(said)


def _in_order(spec: TaskSpec, file: _File, keys: Iterable[str]) -> list[str]:
    """The inputs ``keys`` in the order of their hash, with every label of a classification in proportion."""
    order = sorted(keys, key=lambda key: _rank(str(spec.split_seed), key))
    label = spec.label
    if spec.kind != "classification" or label is None:
        return order
    return stratified(order, lambda key: file.groups[key][0].fields[label])


def because(notices: Iterable[Notice]) -> str:
    """The rows that are no examples, for a message about too few inputs."""
    told = "; ".join(map(str, notices))
    return f"; {told}" if told else ""


def _file(spec: TaskSpec, root: Path, file: str | None) -> _File:
    """The rows of a file by their normalised input."""
    if file and root.is_file():
        raise InputError(
            f"task '{spec.name}': source.local is the file {root.name}, which has no file '{file}' in it; "
            "give its folder"
        )
    path = root / file if file else root
    usable = usable_rows(spec, path)
    if not usable.of_rows:
        raise InputError(f"task '{spec.name}': {path}: there is no row in this file")
    groups: dict[str, Group] = {}
    for row in usable.rows:
        groups.setdefault("\0".join(normalise(row.fields[name]) for name in spec.input_fields), []).append(row)
    repeated = notices(path.name, usable.of_rows, _repeated(spec, groups.values()), lost=False)
    return _File(path.name, groups, usable.of_rows, (*usable.notices, *repeated))


def _repeated(spec: TaskSpec, groups: Iterable[Group]) -> dict[str, list[str]]:
    """Reason -> places of the rows that add no example, because another row has their input."""
    again: dict[str, list[str]] = {"repeat another row and count once": []}
    alike: dict[str, list[str]] = {
        "differ from another row's input in case, white space, the form of signs or what is not in 'input', and are "
        "scored as answers to that row's prompt": []
    }
    other: dict[str, list[str]] = {"give another row's input another label; the first row counts": []}
    for group in groups:
        by_place: dict[str, set[str]] = {}  # a row with several references is in its group once for each
        for row in group:
            answer = "\0".join((normalise(_completion(spec, row.fields)), normalise(_rejected(spec, row.fields) or "")))
            by_place.setdefault(row.place, set()).add(answer)
        answers: set[str] = set()
        first = {row.place: row.fields for row in reversed(group)}
        prompt = _prompt(spec, group[0].fields)
        for place, own in by_place.items():
            if own <= answers:
                next(iter(again.values())).append(place)
            elif answers and spec.has_one_answer:
                next(iter(other.values())).append(place)
            elif _prompt(spec, first[place]) != prompt and spec.kind != "preference":
                next(iter(alike.values())).append(place)
            answers |= own
    return again | other | alike


def _prompt(spec: TaskSpec, row: Row) -> str:
    """What a model reads; white space at its ends says nothing."""
    return spec.prompt.format_map(row).strip()


def _shared(file: _File, taken: Mapping[str, str]) -> tuple[Notice, ...]:
    """The notices about rows of an official split whose input another split holds."""
    places: dict[str, list[str]] = {}
    for key in file.groups.keys() & taken.keys():
        places.setdefault(f"have an input of the {taken[key]} split and count there alone", []).extend(
            row.place for row in file.groups[key]
        )
    order = {row.place: number for number, row in enumerate(row for group in file.groups.values() for row in group)}
    for rows in places.values():
        rows.sort(key=order.__getitem__)
    return notices(file.name, file.of_rows, places, lost=False)


# --- examples --------------------------------------------------------------------------------------------------------


def _each_output(spec: TaskSpec, group: Group) -> list[Example]:
    """Training examples: one per distinct output of an input."""
    distinct: dict[tuple[str, str], Row] = {}
    for row in _answers(spec, group):
        distinct.setdefault((normalise(_completion(spec, row)), normalise(_rejected(spec, row) or "")), row)
    return [_example(spec, row, (_completion(spec, row),)) for row in distinct.values()]


def _to_score(spec: TaskSpec, group: Group) -> list[Example]:
    """Examples to score: one per input, with every distinct output as a reference; every pair of a preference task."""
    if spec.kind == "preference":
        return _each_output(spec, group)
    distinct: dict[str, str] = {}
    for output in (_completion(spec, row) for row in _answers(spec, group)):
        distinct.setdefault(normalise(output), output)
    return [_example(spec, group[0].fields, tuple(distinct.values()))]


def _answers(spec: TaskSpec, group: Group) -> list[Row]:
    """The rows that answer an input: only the first one where only one answer is right."""
    return [row.fields for row in (group[:1] if spec.has_one_answer else group)]


def _example(spec: TaskSpec, row: Row, references: tuple[str, ...]) -> Example:
    prompt, words = spec.prompt.format_map(row), _words(spec, row)
    return Example(
        prompt=prompt,
        text=spec.text.format_map(row) if spec.text else prompt,
        completion=references[0],
        references=references,
        label=_right(spec, row) if words else None,
        target=_target(spec, row),
        rejected=_rejected(spec, row),
        fields=row,
        candidates=tuple(_filled(spec, row, word) for word in words),
        source="\0".join(normalise(row[name]) for name in spec.cluster or spec.input_fields),
    )


def _completion(spec: TaskSpec, row: Row) -> str:
    words, target = _words(spec, row), _target(spec, row)
    if target is not None:
        return _filled(spec, row, spec.number_text(target))
    return _filled(spec, row, words[_right(spec, row)] if words else None)


def _target(spec: TaskSpec, row: Row) -> float | None:
    return float(row[spec.label]) if spec.kind == "regression" and spec.label is not None else None


def _words(spec: TaskSpec, row: Row) -> tuple[str, ...]:
    """What the answers to an input differ in: the words of the labels, or the row's choices; empty for free answers."""
    return choices.texts(spec, row) if spec.choices else tuple(spec.labels.values())


def _right(spec: TaskSpec, row: Row) -> int:
    """Index of the right one of :func:`_words`."""
    if spec.choices or spec.label is None:
        return choices.right(spec, row)
    return list(spec.labels).index(row[spec.label])


def _filled(spec: TaskSpec, row: Row, word: str | None) -> str:
    filled_in = {} if word is None else {FILLED_IN[spec.kind]: word}
    return spec.completion.format_map({**row, **filled_in}).strip()


def _rejected(spec: TaskSpec, row: Row) -> str | None:
    return spec.rejected.format_map(row).strip() if spec.rejected else None
