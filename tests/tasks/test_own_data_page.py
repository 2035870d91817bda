"""The guide to own data: each of its files is one that the harness takes, with data of the form that it shows."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import checkpoints

from harness import cli
from harness.sweeps import expand
from harness.sweeps import spec as sweeps
from harness.tasks import check, data
from harness.tasks.metrics import METRICS
from harness.tasks.reader import FORMATS, Reader
from harness.tasks.spec import TaskSpec

PAGE = (Path(__file__).parents[2] / "docs" / "own_data.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return [block.split("```")[0] for block in PAGE.split(f"```{language}\n")[1:]]


#: Name of the file -> its content, from the blocks that begin with ``# name``, and the first three by what they are.
FILES = {
    (block.splitlines()[0].removeprefix("# ") if block.startswith("# ") else f"{yaml.safe_load(block)['name']}.yaml"): (
        block
    )
    for block in blocks("yaml")
}
TASKS = [name for name, block in FILES.items() if "\nmodels:" not in block]
SWEEPS = [name for name, block in FILES.items() if "\nmodels:" in block]


#: What the page names on the hub -> what stands for it here; ``test_hub_data`` and ``test_hub`` read from a hub.
HERE = {
    "{hub: ORG/REVIEWS, revision: COMMIT, repository: dataset}": "{local: hub}",
    "sentence-transformers/all-MiniLM-L6-v2": "minilm-l6-22m",
}


def turns(i: int, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": f"{answer} {i}"}]


def write(folder: Path) -> None:
    """Data in the form that the page shows, large enough for the splits of its tasks, and the page's own files."""
    numbers = range(620)
    tickets = [f"text {i},{'tech' if i % 2 else 'billing'}" for i in numbers]
    (folder / "tickets.csv").write_text("\n".join(["body,team", *tickets]))
    replies = [{"question": f"q {i}", "good": f"yes {i}", "bad": f"no {i}"} for i in numbers]
    (folder / "replies.jsonl").write_text("\n".join(map(json.dumps, replies)))
    options = {"text": ["right", "wrong"], "key": ["A", "B"]}
    exam = [{"question": f"q {i}", "options": options, "answer": "AB"[i % 2]} for i in numbers]
    (folder / "exam.jsonl").write_text("\n".join(map(json.dumps, exam)))
    ratings = [f"text {i},{i % 9 / 2 + 1}" for i in numbers]
    (folder / "ratings.csv").write_text("\n".join(["body,stars", *ratings]))
    header, *rows = blocks("csv")[0].splitlines()
    reviews = [re.sub(r'^\d+;"', f'{i};"{i} ', rows[i % 2]) for i in numbers]
    (folder / "reviews.csv").write_text("\n".join([header, *reviews]), encoding="cp1252")
    chat, pair, answer = map(json.loads, blocks("json"))
    shape = chat["data"]["conversations"][0]
    chat["data"]["conversations"] = [{**shape, "messages": turns(i, "yes")} for i in range(160)]
    (folder / "chat.json").write_text(json.dumps(chat))
    assert {"chosen", "rejected"} == set(pair)
    pairs = [{"chosen": turns(i, "yes"), "rejected": turns(i, "no")} for i in range(120)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    answers = [{name: f"{text} {i}" for name, text in answer.items()} for i in range(150)]
    (folder / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    (folder / "hub").mkdir()
    for split in ("train", "test"):
        sentences = [{"sentence": f"{split} {i}", "label": i % 2} for i in range(200)]
        (folder / "hub" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, sentences)))
    for i in range(120):
        for name in (f"texts/{i}.txt", f"films/{('train', 'test')[i % 2]}/{('pos', 'neg')[i // 2 % 2]}/{i}.txt"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"text {i}")
    facts = [{"triples": [{"o": f"x{i}", "p": "is", "s": "a"}], "texts": [{"lex": f"a is x{i}."}]} for i in numbers]
    entries = {"entries": [{str(place): entry} for place, entry in enumerate(facts[:100], 1)]}
    (folder / "facts.json").write_text(json.dumps(entries))
    (folder / "mrpc").mkdir()
    for split in ("train", "test"):
        lines = [f'{i % 2}\t1\t2\t"I think, he said {split} {i}\tHe said: "No.' for i in numbers]
        table = "\r\n".join(["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", *lines])
        (folder / "mrpc" / f"msr_paraphrase_{split}.txt").write_bytes(table.encode())
    checkpoints.save(folder / "model", "bert")
    for name, content in FILES.items():
        for of_hub, here in HERE.items():
            content = content.replace(of_hub, here)
        (folder / name).write_text(content, encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page")
    write(place)
    return place


#: Task -> its kind, and something about one of its examples.
KNOWN: dict[str, tuple[str, Callable[[data.Example], Any], Any]] = {
    "tickets.yaml": ("classification", lambda e: e.prompt[:13], "Ticket: text "),
    "found.yaml": ("classification", lambda e: (e.prompt[:10], e.prompt[-5:]), ("Body: text", "Team:")),
    "exam.yaml": ("multiple_choice", lambda e: e.candidates, ("right", "wrong")),
    "ratings.yaml": ("regression", lambda e: e.target == float(e.completion) == int(e.text[5:]) % 9 / 2 + 1, True),
    "replies.yaml": ("preference", lambda e: (e.completion[:3], (e.rejected or "")[:2]), ("yes", "no")),
    "reviews.yaml": ("classification", lambda e: e.text.split()[-1] in ("film", "floor"), True),
    "chat.yaml": ("generation", lambda e: (e.prompt[:9], e.completion[:3]), ("question ", "yes")),
    "pairs.yaml": ("preference", lambda e: (e.prompt[:9], (e.rejected or "")[:2]), ("question ", "no")),
    "answers.yaml": ("preference", lambda e: (e.completion[:3], (e.rejected or "")[:2]), ("Yes", "No")),
    "hub-reviews.yaml": ("classification", lambda e: int(e.text.split()[1]) % 2 == e.label, True),
    "facts.yaml": ("generation", lambda e: (e.prompt[:17], e.completion[:6]), ("Facts: a : is : x", "a is x")),
    "texts.yaml": ("corpus", lambda e: (e.prompt, e.completion[:5]), ("", "text ")),
    "folders.yaml": ("classification", lambda e: (e.label == 0) == (int(e.text.split()[1]) // 2 % 2 == 0), True),
    "mrpc.yaml": (
        "classification",
        lambda e: '"I think, he said' in e.prompt and e.text.endswith('He said: "No.'),
        True,
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_of_the_page_reads_data_of_the_form_that_it_shows(folder: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = data.load(str(folder / name))
    kind, of_example, known = KNOWN[name]
    assert task.kind == kind
    assert {of_example(example) for example in (*task.train, *task.test)} == {known}
    if kind == "classification":
        assert {example.label for example in task.test} == {0, 1}


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_of_the_page_can_be_planned(folder: Path, name: str) -> None:
    plan = expand.plan(sweeps.load(str(folder / name), ["seeds=[0]"]))
    assert plan.runnable
    check.tasks(row.trial for row in plan.runnable)


def test_the_commands_of_the_page_exist_and_name_its_files(folder: Path) -> None:
    commands = [line.split() for block in blocks("sh") for line in block.splitlines()]
    known = {command.callback.__name__ for command in cli.app.registered_commands if command.callback is not None}
    assert {words[1] for words in commands} == {"show", "plan", "fetch", "run"} <= known
    for words in commands:
        assert words[0] == "tunebench" and (folder / words[2]).exists()


def test_the_page_names_every_metric_key_and_format() -> None:
    words = set(re.findall(r"\w+", PAGE))
    assert set(METRICS) <= words
    assert set(TaskSpec.model_fields) - {"name", "description", "language", "license", "citation", "notes"} <= words
    assert set(Reader.model_fields) - {"file"} <= words
    assert set(FORMATS) <= set(re.findall(r"\.\w+", PAGE))
