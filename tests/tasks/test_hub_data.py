"""A task of one's own whose data is on the hub: planned at a commit alone, so that its rows stay comparable."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from helpers import hub as hubs

from harness import cli
from harness.tasks.overview import overview

pytestmark = pytest.mark.slow

TASK = {
    "name": "notes",
    "kind": "classification",
    "prompt": "Text: {text}\nLabel:",
    "label": "label",
    "labels": {"a": "first", "b": "second"},
    "splits": {"train": "train.jsonl", "validation": 4, "test": "test.jsonl"},
}
SWEEP = {
    "name": "s",
    "models": ["minilm-l6-22m"],
    "tasks": ["notes.yaml"],
    "methods": ["baseline"],
    "budget": {"train_examples": 8},
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hubs.Hub]:
    """A hub with the data set ``org/notes``, and a sweep over it in the current folder; nothing is cached."""
    (tmp_path / "served").mkdir()
    for name, first in (("train", 0), ("test", 100)):
        rows = ({"text": f"text {n}", "label": "ab"[n % 2]} for n in range(first, first + 20))
        (tmp_path / "served" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("s.yaml").write_text(yaml.safe_dump(SWEEP))
    with hubs.serve() as served:
        served.add("datasets/org/notes", tmp_path / "served")
        hubs.point_to(served.url, tmp_path / "hf", monkeypatch)
        yield served


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Give a command line: its exit code, output and errors."""

    def ended(*command: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tunebench", *command])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        code = exit_.value.code
        assert isinstance(code, int)
        return (code, *capsys.readouterr())

    return ended


def _write(revision: str) -> None:
    source = {"hub": "org/notes", "revision": revision, "repository": "dataset"}
    Path("notes.yaml").write_text(yaml.safe_dump({**TASK, "source": source}))


def test_a_revision_that_can_move_is_refused_with_the_commit_that_it_is(
    hub: hubs.Hub, ended: Callable[..., tuple[int, str, str]]
) -> None:
    _write("main")
    commit = hub.revisions["datasets/org/notes"]["main"]
    code, out, err = ended("plan", "s.yaml")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: task 'notes': source.revision: 'main' can move")
    assert err.endswith(f"; write a commit; it is {commit} now\n")
    _write("nope")
    assert ended("plan", "s.yaml") == (2, "", "error: task 'notes': source.revision: the hub has no such revision\n")


def test_what_is_on_the_hub_is_read_and_planned_at_its_commit(
    hub: hubs.Hub, ended: Callable[..., tuple[int, str, str]]
) -> None:
    _write(hub.revisions["datasets/org/notes"]["main"])
    assert overview("notes.yaml").sizes == {"train": 16, "validation": 4, "test": 20}
    code, out, _ = ended("plan", "s.yaml")
    assert code == 0 and "1 to run, 0 skipped" in out
    assert [request for request in hub.requests if request.endswith("train.jsonl")]
