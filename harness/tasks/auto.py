"""What a data file is, told by its columns and values: what a task's YAML file need not write (``kind: auto``).

A form that has names of its own (chosen and rejected answers, dialogues, instructions) is taken at its word. Of the
others every reading that fits is collected: one is taken, several are an error that names them, because a wrong guess
would cost a sweep.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from harness import specfile
from harness.errors import InputError
from harness.tasks import delimited, read
from harness.tasks.encodings import content_of, decoded
from harness.tasks.reader import COMPRESSED, FORMATS, Reader
from harness.tasks.templates import FILLED_IN
from harness.tasks.turns import are_turns

#: Pairs of columns that people call so: what is read, and what answers it.
_ANSWERED = (
    *(("prompt", "completion"), ("prompt", "response"), ("prompt", "answer"), ("question", "answer")),
    *(("input", "output"), ("source", "target"), ("query", "response"), ("document", "summary")),
    *(("article", "highlights"), ("article", "summary"), ("text", "summary"), ("context", "response")),
)
#: Pairs of columns with two texts that one label is about.
_TWO_TEXTS = (
    *(("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("text1", "text2")),
    *(("question", "sentence"), ("query", "passage"), ("text_a", "text_b"), ("first", "second")),
)
_PROMPTS = ("prompt", "question", "instruction", "query", "input")
_TEXTS = ("text", "sentence", "review", "body", "comment", "content", "message", "document", "tweet", "utterance")
_LABELS = ("label", "labels", "class", "category", "sentiment", "intent", "topic", "target", "tag")
_NUMBERS = ("score", "similarity", "rating", "number", "value")
_IDS = frozenset(("id", "idx", "index", "nr", "uid", "guid", "row", "unnamed: 0", ""))

#: Columns without such a name are labels up to this many values, and whole numbers are labels up to that many.
_MOST_LABELS, _MOST_NUMBERED = 20, 10
_LONGEST_LABEL = 60
_HH = {
    "chosen": r"(?s)^\s*(?P<dialogue>.*\n\nAssistant:)(?P<better>(?:(?!\n\nHuman:).)*)$",
    "rejected": r"(?s)^\s*(?P<asked>.*\n\nAssistant:)(?P<worse>(?:(?!\n\nHuman:).)*)$",
}


@dataclass(frozen=True)
class Recognised:
    """What a file was taken for."""

    what: str
    """In words, such as 'Alpaca instructions (columns instruction, input, output)'."""
    keys: Mapping[str, Any]
    """The keys of the task, ``kind`` among them, but for its name and source."""


@dataclass(frozen=True)
class _Column:
    """A column with the values that it has."""

    name: str
    texts: Sequence[str]
    nested: Sequence[Any]

    @property
    def known_as(self) -> str:
        return self.name.strip().casefold()

    @cached_property
    def distinct(self) -> list[str]:
        return sorted(set(self.texts))

    @cached_property
    def is_dialogue(self) -> bool:
        return bool(self.nested) and all(are_turns(value) for value in self.nested[:100])

    @cached_property
    def is_number(self) -> bool:
        return bool(self.texts) and all(map(_is_finite, self.texts))

    @cached_property
    def are_labels(self) -> bool:
        """Whether few short values come again and again."""
        most = len(self.texts) // 2
        if self.is_number:
            whole = all(float(text).is_integer() for text in self.distinct[: _MOST_NUMBERED + 1])
            most = min(most, _MOST_NUMBERED if whole and self.known_as not in _NUMBERS else 0)
        elif self.known_as not in _LABELS:
            most = min(most, _MOST_LABELS)
        return 2 <= len(self.distinct) <= most and max(map(len, self.distinct)) <= _LONGEST_LABEL

    @property
    def is_text(self) -> bool:
        return bool(self.texts) and not (self.nested or self.is_number or self.are_labels)


@dataclass(frozen=True)
class _File:
    """The columns of a file, without those that only count its rows."""

    rows: Sequence[read.SourceRow]
    columns: Sequence[_Column]

    def called(self, *names: str) -> list[_Column] | None:
        """The columns called so, whatever the case; None if one is missing."""
        known = {column.known_as: column for column in self.columns}
        return [known[name] for name in names] if all(name in known for name in names) else None

    def named(self, names: Sequence[str]) -> list[_Column]:
        return [column for column in self.columns if column.known_as in names]


def filled(path: Path, document: Any, tell: Callable[[str], object]) -> Any:
    """The mapping of a task's YAML file at ``path``; where ``kind`` is missing or ``auto``, with what the data tells.

    The keys of the file win. ``tell`` hears what the data was taken for. Raises
    :class:`InputError` for a source that is not on this machine, and for data that is nothing known or several things.
    """
    if not isinstance(document, dict) or document.get("kind", "auto") != "auto" or "source" not in document:
        return document
    source = document["source"]
    local = source.get("local") if isinstance(source, dict) else None
    if not isinstance(local, str):
        raise InputError(f"{path}: kind: auto looks into a local file, and 'source' names none; write the kind")
    reader = specfile.parse(Reader, document.get("reader") or {}, f"{path}: reader")
    splits = document.get("splits")
    files = [file for file in splits.values() if isinstance(file, str)] if isinstance(splits, dict) else []
    place = path.resolve().parent / Path(local).expanduser()
    data = place / file if (file := reader.file or next(iter(files), None)) else place
    recognised = recognise(data, reader)
    tell(recognised.what)
    return {**recognised.keys, **document, "kind": recognised.keys["kind"]}


def recognise(path: Path, reader: Reader | None = None) -> Recognised:
    """What the file or folder of texts at ``path`` is. Raises :class:`InputError` as :func:`filled` does."""
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(f"{path} does not exist: there is no such file") from error
    return _recognised(path, (reader or Reader()).model_dump_json(exclude_unset=True), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _recognised(path: Path, reader: str, _modified: int, _size: int) -> Recognised:
    given = Reader.model_validate_json(reader)
    added = _reader_of(path, given)
    whole = specfile.parse(Reader, {**json.loads(reader), **added}, f"{path}: reader")
    file = _file(read.table(path, whole).rows, whole.missing)
    by_name = next((one for form in _FORMS if (one := form(file)) is not None), None)
    candidates = [by_name] if by_name is not None else list(_readings(file))
    names = ", ".join(repr(column.name) for column in file.columns) or "none"
    if not candidates:
        raise InputError(f"{path}: kind: auto: its columns ({names}) are like no form that is known; write the kind")
    if len(candidates) > 1:
        either = "; or ".join(f"{one.what}, kind: {one.keys['kind']}" for one in candidates[:6])
        raise InputError(f"{path}: kind: auto: it may be {either}; write the kind and its columns")
    keys = {**candidates[0].keys, **({"reader": {**json.loads(reader), **added}} if added else {})}
    return Recognised(candidates[0].what, {**keys, "splits": _splits(path, file, keys)})


def _reader_of(path: Path, given: Reader) -> dict[str, Any]:
    """What the reader lacks to read the file."""
    if path.is_dir():
        return {} if given.format else {"format": "text"}
    plain = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    if given.format is None and plain.suffix.lower() in (".txt", ".text", ".md"):
        return {"format": "lines", "pattern": "(?P<text>.+)"}
    if FORMATS.get(plain.suffix.lower()) == "csv" and given.format is None and given.delimiter is None:
        lines = decoded(content_of(path), given.encoding).split("\n")[given.skip_lines :]
        other = delimited.likely([line for line in lines if not line.startswith("sep=")], ",")
        return {} if other is None or lines[0].startswith("sep=") else {"delimiter": other}
    return {}


def _file(rows: Sequence[read.SourceRow], missing: Sequence[str]) -> _File:
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    columns = []
    for name in names:
        texts = [text for row in rows if (text := row.values.get(name, "").strip()) and text not in missing]
        nested = [row.nested[name] for row in rows if name in row.nested]
        columns.append(_Column(name, texts, nested))
    return _File(rows, [column for column in columns if column.known_as not in _IDS and column.texts])


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


# --- forms with names of their own -----------------------------------------------------------------------------------


def _preferences(file: _File) -> Recognised | None:
    if (pair := file.called("chosen", "rejected")) is None:
        return None
    chosen, rejected = pair
    prompt = next(iter(file.named(_PROMPTS)), None)
    if prompt is not None:
        keys = _Keys(file)
        templates = {"prompt": keys(prompt), "completion": keys(chosen), "rejected": keys(rejected)}
        return keys.recognised("preference", "chosen and rejected answers", [prompt, *pair], **templates)
    if chosen.is_dialogue:
        return _Keys(file).recognised(
            "preference", "chosen and rejected dialogues", pair, dialogue=chosen.name, rejected=f"{{{rejected.name}}}"
        )
    if all("\n\nAssistant:" in text for text in chosen.texts):
        templates = {"prompt": "{dialogue}", "completion": "{better}", "rejected": "{worse}"}
        extract = {chosen.name: _HH["chosen"], rejected.name: _HH["rejected"]}
        what = f"chosen and rejected transcripts{_of_two_dialogues(file, *pair)}"
        return _Keys(file).recognised("preference", what, pair, extract=extract, **templates)
    return None


def _of_two_dialogues(file: _File, chosen: _Column, rejected: _Column) -> str:
    """How many rows compare answers to two dialogues, as the end of a sentence; empty if none does."""
    apart = [row for row in file.rows if _asked(row, chosen.name, "chosen") != _asked(row, rejected.name, "rejected")]
    if not apart:
        return ""
    pairs = f"{len(apart)} of {len(file.rows)} pairs are answers to two different dialogues"
    return f", of which {pairs}, and the chosen one's is the prompt (first: {apart[0].place})"


def _asked(row: read.SourceRow, column: str, part: str) -> str | None:
    match = re.search(_HH[part], row.values.get(column, ""))
    return match and match[1].strip()


def _dialogues(file: _File) -> Recognised | None:
    of_turns = [column for column in file.columns if column.is_dialogue]
    if len(of_turns) != 1:
        return None
    form = "ShareGPT" if any("from" in turn for turn in of_turns[0].nested[0]) else "messages"
    return _Keys(file).recognised("generation", f"dialogues ({form})", of_turns, dialogue=of_turns[0].name)


def _instructions(file: _File) -> Recognised | None:
    for name, answer, beside in (("Alpaca", "output", "input"), ("Dolly", "response", "context")):
        pair = file.called("instruction", answer)
        if pair is None:
            continue
        instruction, output = pair
        extra = file.named([beside])
        keys = _Keys(file)
        prompt = "\n".join(keys(column) for column in (instruction, *extra))
        used = [instruction, *extra, output]
        inputs = {"input": [keys.field(column) for column in (instruction, *extra)]} if extra else {}
        optional = {"optional": [keys.field(column) for column in extra]} if extra else {}
        given = {"prompt": prompt, "completion": keys(output), **inputs, **optional}
        return keys.recognised("generation", f"{name} instructions", used, **given)
    return None


_FORMS: tuple[Callable[[_File], Recognised | None], ...] = (_preferences, _dialogues, _instructions)


# --- forms that other columns may have too ---------------------------------------------------------------------------


def _readings(file: _File) -> Iterator[Recognised]:
    """Every reading of the columns that fits."""
    labels, numbers = _labels(file), _numbers(file)
    of_answers = [pair for names in _ANSWERED if (pair := file.called(*names)) is not None]
    sure = [column for column in (*labels, *numbers) if column.known_as in (*_LABELS, *_NUMBERS)]
    for source, answer in of_answers:
        if not source.nested and not answer.nested and answer not in sure:
            yield _answered(file, source, answer)
    if of_answers and not sure:
        return
    two = next((pair for names in _TWO_TEXTS if (pair := file.called(*names)) is not None), None)
    texts = [column for column in file.columns if column.is_text and column not in (*labels, *numbers)]
    named = [column for column in texts if column.known_as in _TEXTS]
    for column in labels:
        for of_text in [two] if two else [[text] for text in (named if len(named) == 1 else texts)]:
            yield _classes(file, of_text, column)
    for column in numbers:
        for of_text in [two] if two else [[text] for text in (named if len(named) == 1 else texts)]:
            yield _numbered(file, of_text, column)
    # One that is called a label or a number, and is none, is for the user to look at.
    called_so = any(column.known_as in (*_LABELS, *_NUMBERS) for column in file.columns)
    if not (labels or numbers or of_answers or called_so) and (len(texts) == 1 or len(named) == 1):
        yield _plain(file, (named if len(named) == 1 else texts)[0])


def _labels(file: _File) -> list[_Column]:
    """The columns that may be the label: those called so, or else all with few values."""
    fitting = [column for column in file.columns if column.are_labels]
    named = [column for column in fitting if column.known_as in _LABELS]
    numbered = [column for column in _numbers(file) if column.known_as in (*_NUMBERS, *_LABELS)]
    return named or ([] if numbered else fitting)


def _numbers(file: _File) -> list[_Column]:
    """The columns that may be the number to predict."""
    fitting = [column for column in file.columns if column.is_number and not column.are_labels]
    named = [column for column in fitting if column.known_as in (*_NUMBERS, *_LABELS)]
    return named or ([] if any(column.are_labels for column in file.columns) else fitting)


def _answered(file: _File, source: _Column, answer: _Column) -> Recognised:
    keys = _Keys(file)
    prompt = keys(source) if source.known_as in ("prompt", "input", "source") else f"{_title(source)}: {keys(source)}"
    ending = f"\n{_title(answer)}:" if source.known_as in ("question", "query", "document", "article", "text") else ""
    return keys.recognised(
        "generation", "prompts and answers", [source, answer], prompt=prompt + ending, completion=keys(answer)
    )


def _classes(file: _File, texts: Sequence[_Column], label: _Column) -> Recognised:
    keys = _Keys(file)
    what = "texts with a label" if len(texts) == 1 else "pairs of texts with a label"
    words = {value: value for value in label.distinct}
    return keys.recognised(
        "classification", what, [*texts, label], **_read(keys, texts, label), label=keys.field(label), labels=words
    )


def _numbered(file: _File, texts: Sequence[_Column], number: _Column) -> Recognised:
    keys = _Keys(file)
    what = "texts with a number" if len(texts) == 1 else "pairs of texts with a number"
    return keys.recognised("regression", what, [*texts, number], **_read(keys, texts, number), label=keys.field(number))


def _plain(file: _File, text: _Column) -> Recognised:
    keys = _Keys(file)
    return keys.recognised("corpus", "plain text", [text], completion=keys(text))


def _read(keys: _Keys, texts: Sequence[_Column], answer: _Column) -> dict[str, Any]:
    """What models read: decoders with the names of the columns, encoders without."""
    shown = "\n".join(f"{_title(text)}: {keys(text)}" for text in texts)
    return {"prompt": f"{shown}\n{_title(answer)}:", "text": " ".join(keys(text) for text in texts)}


def _title(column: _Column) -> str:
    words = re.sub(r"[^\w]+|_", " ", column.name).strip()
    return words[:1].upper() + words[1:]


class _Keys:
    """The keys of a task over ``file``; a column whose name cannot stand in a template gets a field of another name."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self._fields: dict[str, str] = {}

    def field(self, column: _Column) -> str:
        """The name of the field with the column."""
        if column.name.isidentifier() and column.name not in FILLED_IN.values():
            return column.name
        known = {other.name for other in self._file.columns} - {column.name}
        name = re.sub(r"\W+", "_", column.name).strip("_").lower() or "column"
        name = name if name.isidentifier() and name not in {*known, *FILLED_IN.values()} else f"column_{name}"
        self._fields[name] = column.name
        return name

    def __call__(self, column: _Column) -> str:
        """The placeholder of the column."""
        return f"{{{self.field(column)}}}"

    def recognised(self, kind: str, what: str, used: Sequence[_Column], **keys: Any) -> Recognised:
        """What the file is, with the keys that follow from what was ``used``."""
        told = f"{what} (column{'s' * (len(used) > 1)} {', '.join(column.name for column in used)})"
        fields = {"fields": self._fields} if self._fields else {}
        answers = {"max_new_tokens": _answer_tokens(used[-1])} if kind in ("generation", "preference") else {}
        return Recognised(told, {"kind": kind, **fields, **keys, **answers})


def _answer_tokens(column: _Column) -> int:
    """Tokens for nine of ten answers, by three characters for each, as a power of two from 8 to 256."""
    texts = [_last_words(value) for value in column.nested] if column.is_dialogue else column.texts
    lengths = sorted(map(len, texts))
    usual = lengths[(9 * (len(lengths) - 1)) // 10] / 3
    return int(min(256, max(8, 2 ** math.ceil(math.log2(max(usual, 1))))))


def _last_words(turns: Sequence[Mapping[str, Any]]) -> str:
    return str(turns[-1].get("content", turns[-1].get("value", "")))


def _splits(path: Path, file: _File, keys: Mapping[str, Any]) -> dict[str, int]:
    """A tenth of the distinct inputs for validation, at most 200, and a fifth for test, at most 500."""
    whole = f"{keys.get('prompt', '')}{keys.get('completion', '') if keys['kind'] == 'corpus' else ''}"
    fields = keys.get("fields", {})
    names = [fields.get(name, name) for name in re.findall(r"\{(\w+)\}", whole)]
    names = [name for name in names if any(name == column.name for column in file.columns)]
    if not names:
        names = [column.name for column in file.columns]
    inputs = len({tuple(" ".join(row.values.get(name, "").casefold().split()) for name in names) for row in file.rows})
    if inputs < 10:
        raise InputError(f"{path}: kind: auto: {inputs} different inputs are too few to draw splits from; add rows")
    return {"validation": min(200, inputs // 10), "test": min(500, inputs // 5)}
