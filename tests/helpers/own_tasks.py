"""A test helper: data files and tasks of a user's own, written into a folder and loaded."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import InputError
from harness.tasks import data

SPLITS = {"validation": 2, "test": 2}
GENERATION: dict[str, Any] = {"kind": "generation", "prompt": "{q}", "completion": "{a}", "splits": SPLITS}
CLASSES: dict[str, Any] = {
    "kind": "classification",
    "prompt": "{body}",
    "label": "team",
    "labels": {"billing": "billing", "tech": "technical"},
    "splits": SPLITS,
}
DIALOGUE: dict[str, Any] = {"kind": "generation", "splits": SPLITS}
PAIRS: dict[str, Any] = {
    "kind": "preference",
    "prompt": "{prompt}",
    "completion": "{chosen}",
    "rejected": "{rejected}",
    "splits": SPLITS,
}


def task(folder: Path, name: str, content: str | bytes | None, base: dict[str, Any], **changes: Any) -> str:
    """A data file and its task in ``folder``; returns the path of the latter. Without content, the data is there."""
    if content is not None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump({"name": "own", "source": {"local": name}, **base, **changes}), encoding="utf-8")
    return str(path)


def examples(path: str) -> list[data.Example]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = data.load(path)
    return sorted((*loaded.train, *loaded.validation, *loaded.test), key=lambda e: (e.prompt, e.completion))


def texts(path: str) -> set[tuple[str, str]]:
    return {(e.prompt, e.completion) for e in examples(path)}


def refused(path: str) -> str:
    with pytest.raises(InputError) as told:
        data.load(path)
    assert "\n" not in str(told.value)
    return str(told.value)


def jsonl(rows: list[Any]) -> str:
    return "\n".join(map(json.dumps, rows)) + "\n"


TICKETS = {(f"text {i}", "billing" if i % 2 else "technical") for i in range(6)}


def tickets(delimiter: str, before: str = "", after: str = "", header: str = "body{}team") -> str:
    rows = [f"text {i}{delimiter}{'billing' if i % 2 else 'tech'}{after}" for i in range(6)]
    return "\n".join([before + header.format(delimiter) + after, *rows]) + "\n"


ANSWERS = {(f"q {i}", f"a {i}") for i in range(6)}
