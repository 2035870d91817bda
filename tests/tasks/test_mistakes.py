"""Mistakes in a task that its data cannot show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.own_tasks import (
    CLASSES,
    GENERATION,
    PAIRS,
    SPLITS,
    refused,
    task,
    tickets,
)

CORPUS: dict[str, Any] = {"kind": "corpus", "splits": SPLITS}


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (CLASSES, {"prompt": "{body} {team}"}, "prompt: it gives the label away"),
        (CLASSES, {"prompt": "{body} {label_word}"}, "prompt: it gives the label away"),
        (CLASSES, {"text": "{body} {team}"}, "text: it gives the label away"),
        (CLASSES, {"input": ["body", "team"]}, "input: it gives the label away"),
        (CLASSES, {"prompt": "hello"}, "prompt: it holds no field"),
        (CLASSES, {"prompt": ""}, "prompt: it holds no field"),
        (CLASSES, {"text": "hello"}, "text: it holds no field"),
        (CLASSES, {"completion": "yes"}, "completion: it must hold {label_word}"),
        (CLASSES, {"completion": ""}, "completion: it must hold {label_word}"),
        (CLASSES, {"labels": {"billing": " ", "tech": "t"}}, "labels: a label's word is empty"),
        (CLASSES, {"labels": {"billing": "t ", "tech": "t"}}, "labels: two labels have the same word"),
        (CLASSES, {"metrics": ["rouge_l"]}, "metrics: 'rouge_l' does not rate a classification task; valid: accuracy"),
        (CLASSES, {"metrics": ["accuracy", "accuracy"]}, "metrics: a name is there twice"),
        (CLASSES, {"answer_pattern": "(x)"}, "answer_pattern: a classification task has no free answers"),
        (CLASSES, {"max_new_tokens": 10**9}, "max_new_tokens"),
        (CLASSES, {"extract": {"body": "abc"}}, "extract: body: the expression has no named group"),
        (CLASSES, {"fields": {"words": "nothing"}}, "fields: words: unknown name 'nothing'"),
        (CLASSES, {"splits": {"validation": 0.1, "test": 2}}, "no share"),
        (CLASSES, {"splits": {"validation": "10%", "test": 2}}, "no share"),
        (CLASSES, {"splits": {"validation": True, "test": 2}}, "no share"),
        (CLASSES, {"splits": {"train": "a.csv", "validation": 2, "test": "./a.csv"}}, "two splits have the same file"),
        (CLASSES, {"reader": {"file": "rows.csv"}}, "has no file 'rows.csv' in it; give its folder"),
        (CLASSES, {"reader": {"encoding": "utf9"}}, "unknown encoding 'utf9'; did you mean 'utf-8'"),
        (CLASSES, {"reader": {"records": "data"}}, "reader.records belongs to json, xml, and this file is read as csv"),
        (CLASSES, {"reader": {"columns": ["a", "a"]}}, "columns: a name is there twice"),
        (CLASSES, {"reader": {"delimiter": ";;"}}, "delimiter"),
        (GENERATION, {"reader": {"columns": ["q"], "format": "jsonl"}}, "reader.columns belongs to csv, tsv"),
        (GENERATION, {"reader": {"quotes": True, "format": "jsonl"}}, "reader.quotes belongs to csv, tsv"),
        (GENERATION, {"metrics": ["perplexity"]}, "'perplexity' does not rate a generation task"),
        (GENERATION, {"completion": "hello"}, "completion: it holds no field"),
        (GENERATION, {"completion": "{q}"}, "prompt: it gives the answer away"),
        (GENERATION, {"labels": {"x": "x", "y": "y"}}, "labels: belongs to kind 'classification'"),
        (GENERATION, {"label": "a"}, "label: belongs to kind 'classification'"),
        (GENERATION, {"optional": ["a"]}, "optional: 'a' is all of 'completion'"),
        (PAIRS, {"rejected": "{chosen}"}, "rejected: it is the same as 'completion'"),
        (CORPUS, {"prompt": "{q}"}, "prompt: a corpus has none"),
        (CORPUS, {"metrics": ["accuracy"]}, "'accuracy' does not rate a corpus task; valid: perplexity"),
        (CORPUS, {"dialogue": "m"}, "dialogue: a corpus task has no answers"),
        ({"kind": "generation", "completion": "{a}", "splits": SPLITS}, {}, "'prompt' is missing"),
    ],
)
def test_parts_of_a_task_go_together(
    tmp_path: Path, base: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    assert message in refused(task(tmp_path, "rows.csv", tickets(","), base, **changes))
