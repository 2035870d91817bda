"""The tasks of the hub read files of the form that the hub has: rows as its pages show them, in files made here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.sources import fetch
from harness.sources.fetch import HubSource
from harness.tasks import data
from harness.tasks.spec import TaskSpec, load_spec, names

pytestmark = pytest.mark.slow

HUB = [name for name in names() if isinstance(load_spec(name).source, HubSource)]


def turns(answer: str) -> list[dict[str, str]]:
    return [{"content": "Who wrote Faust?", "role": "user"}, {"content": answer, "role": "assistant"}]


#: A row of each task, without its label.
ROWS: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "Name a river.", "input": "", "output": "The Rhine.", "text": "Below is ..."},
    "cb": {"premise": "He knew it rained.", "hypothesis": "it rained", "idx": 0},
    "dolly": {"instruction": "Name a river.", "context": "", "response": "The Rhine.", "category": "open_qa"},
    "mnli": {"premise": "A dog runs.", "hypothesis": "An animal moves.", "idx": 0},
    "mnli_mismatched": {"premise": "A dog runs.", "hypothesis": "An animal moves.", "idx": 0},
    "mrpc": {"sentence1": "It rained.", "sentence2": "There was rain.", "idx": 0},
    "multirc": {"paragraph": "Ann met Bo.", "question": "Who met Bo?", "answer": "Ann", "idx": {"paragraph": 0}},
    "qnli": {"question": "Who met Bo?", "sentence": "Ann met Bo.", "idx": 0},
    "qqp": {"question1": "How old are you?", "question2": "What is your age?", "idx": 0},
    "record": {
        "passage": "Ann met Bo in Rome.",
        "query": "@placeholder is a city.",
        "entities": ["Ann", "Bo", "Rome"],
        "answers": ["Rome", "the city of Rome"],
    },
    "rte": {"sentence1": "Ann met Bo.", "sentence2": "Bo was met.", "idx": 0},
    "stsb": {"sentence1": "It rained.", "sentence2": "There was rain.", "idx": 0},
    "ultrafeedback": {"prompt": "Who wrote Faust?", "chosen": turns("Goethe."), "rejected": turns("Kant.")},
    "wic": {"word": "bank", "sentence1": "a river bank", "sentence2": "a bank loan", "start1": 8, "idx": 0},
    "wikitext2": {"text": " = Robert Boulter = \n"},
    "wnli": {"sentence1": "Ann told Bo that she won.", "sentence2": "Ann won.", "idx": 0},
    "wsc": {"text": "Ann told Bo that she won.", "span1_text": "Ann", "span2_text": "she", "span2_index": 4, "idx": 0},
}
#: What a decoder reads of such a row, and what it should answer; of a label, the first one.
READ = {
    "alpaca": ("Name a river.\n", "The Rhine."),
    "cb": ("Text: He knew it rained.\nDoes it follow that: it rained\nAnswer with yes, no or maybe.", "yes"),
    "dolly": ("Name a river.\n", "The Rhine."),
    "mnli": (
        "Premise: A dog runs.\nHypothesis: An animal moves.\nDoes the hypothesis follow? Answer with yes, maybe or no.",
        "yes",
    ),
    "mrpc": (
        "First sentence: It rained.\nSecond sentence: There was rain.\nDo they mean the same? Answer with yes or no.",
        "no",
    ),
    "multirc": (
        "Passage: Ann met Bo.\nQuestion: Who met Bo?\nAnswer: Ann\nIs the answer right? Answer with yes or no.",
        "no",
    ),
    "qnli": (
        "Question: Who met Bo?\nSentence: Ann met Bo.\nDoes the sentence answer the question? Answer with yes or no.",
        "yes",
    ),
    "qqp": (
        "First question: How old are you?\nSecond question: What is your age?\n"
        "Do they ask the same? Answer with yes or no.",
        "no",
    ),
    "record": (
        "Text: Ann met Bo in Rome.\nSentence: @placeholder is a city.\nWhat does @placeholder stand for?",
        "Rome",
    ),
    "rte": ("Text: Ann met Bo.\nDoes it follow that: Bo was met.\nAnswer with yes or no.", "yes"),
    "stsb": (
        "First sentence: It rained.\nSecond sentence: There was rain.\n"
        "How alike are they, from 0 to 5? Answer with a number.",
        "3.8",
    ),
    "ultrafeedback": ("Who wrote Faust?", "Goethe."),
    "wic": (
        "First sentence: a river bank\nSecond sentence: a bank loan\n"
        "Does the word 'bank' mean the same in both? Answer with yes or no.",
        "no",
    ),
    "wikitext2": ("", "= Robert Boulter ="),
    "wnli": ("Text: Ann told Bo that she won.\nDoes it follow that: Ann won.\nAnswer with yes or no.", "no"),
    "wsc": (
        'Text: Ann told Bo that she won.\nIn this text, does "she" mean "Ann"? Answer with yes or no.',
        "no",
    ),
}
READ["mnli_mismatched"] = READ["mnli"]


def varied(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    """``row`` with a number behind one text, so that no two inputs are equal; row 0 unchanged."""
    if not number:
        return dict(row)
    name = next(name for name, value in row.items() if isinstance(value, str))
    return {**row, name: f"{row[name]} {number}"}


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(list(rows))
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)


def labelled(spec: TaskSpec, rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """``rows`` with the labels of the task in turn, or with numbers as 32 bits hold them, the first of them 3.8."""
    if spec.kind == "regression":
        return [{**row, "label": np.float32((19 + number) % 25 / 5)} for number, row in enumerate(rows)]
    return [{**row, "label": number % len(spec.labels)} for number, row in enumerate(rows)] if spec.label else rows


@pytest.mark.parametrize("name", HUB)
def test_a_row_as_the_hub_has_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_spec(name)
    assert isinstance(spec.source, HubSource) and spec.source.is_pinned
    for number, file in enumerate(spec.source.files):
        size = 40 if number else 2100
        rows = [varied(ROWS[name], number * 10_000 + row) for row in range(size)]
        # The row that is looked for stands in the file of the test split, or in the only one.
        rows[0] = varied(ROWS[name], 0 if file == (spec.splits.test if spec.splits.files else file) else 99_999)
        write(tmp_path / file, labelled(spec, rows))
    monkeypatch.setattr(fetch, "resolve", lambda *_, **__: tmp_path)
    task = data.load(name)
    sizes = [len(task.validation), len(task.test)]
    assert sizes == [size if isinstance(size, int) else 40 for size in (spec.splits.validation, spec.splits.test)]
    prompt, answer = READ[name]
    everything = [*task.test, *task.validation, *task.train]
    assert (prompt, answer) in [(example.prompt, example.completion) for example in everything]
    assert task.left_out == ()
    if spec.kind == "regression":
        assert max(example.target or 0.0 for example in task.test) == pytest.approx(4.8)
    if spec.references:
        assert {example.references for example in task.test} == {("Rome", "the city of Rome")}
    if spec.kind == "preference":
        assert {example.rejected for example in task.test} == {"Kant."}
