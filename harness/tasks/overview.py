"""A task as its data is: sizes, labels, what was left out, and examples as a model reads them."""

from __future__ import annotations

import statistics
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.tasks import data
from harness.tasks.data import Example, TaskData
from harness.tasks.metrics import METRICS
from harness.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Overview:
    """The data of one task."""

    spec: TaskSpec
    version: str
    sizes: dict[str, int]
    """Examples of each split."""
    left_out: tuple[str, ...]
    """A line for each file and reason with rows that are left out."""
    remarks: tuple[str, ...]
    """A line for each file with rows that repeat others."""
    labels: dict[str, dict[str, int]]
    """Label -> split -> examples; empty outside classification."""
    numbers: dict[str, dict[str, float]]
    """Split -> 'least', 'mean', 'most' and 'deviation' of the numbers to predict; empty outside regression."""
    majority: tuple[str, float] | None
    """The label that is most frequent in training, and its accuracy on the test split; None outside classification."""
    examples: tuple[Example, ...]
    """The first training examples."""

    @property
    def source(self) -> str:
        """Where the data comes from, as a line."""
        given = self.spec.source.model_dump(exclude_none=True)
        key = next(key for key in ("package", "join", "hub", "local") if key in given)
        return f"{key} {given[key]}"

    @property
    def metrics(self) -> tuple[str, ...]:
        """A line for each metric; the first one selects settings."""
        names = sorted(self.spec.metrics, key=lambda name: name != self.spec.primary_metric)
        return tuple(f"{name}: {METRICS[name].description}" for name in names)


def overview(name: str, examples: int = 2) -> Overview:
    """The task called ``name``, or in the YAML file ``name``, with its first training ``examples``.

    Raises :class:`harness.errors.InputError` as :func:`harness.tasks.data.load` does.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is shown
        task = data.load(name)
    splits = {"train": task.train, "validation": task.validation, "test": task.test}
    return Overview(
        spec=task.spec,
        version=task.spec.full_version(),
        sizes={split: len(part) for split, part in splits.items()},
        left_out=task.left_out,
        remarks=tuple(str(notice) for notice in task.notices if not notice.lost),
        labels=_labels(task, splits),
        numbers={split: _spread(part) for split, part in splits.items()} if task.kind == "regression" else {},
        majority=_majority(task),
        examples=task.train[:examples],
    )


def _labels(task: TaskData, splits: dict[str, tuple[Example, ...]]) -> dict[str, dict[str, int]]:
    counts = {split: Counter(example.label for example in part) for split, part in splits.items()}
    return {
        label: {split: counts[split][index] for split in splits} for index, label in enumerate(task.spec.labels.keys())
    }


def _spread(part: Sequence[Example]) -> dict[str, float]:
    targets = [example.target for example in part if example.target is not None]
    return {
        "least": min(targets),
        "mean": statistics.fmean(targets),
        "most": max(targets),
        "deviation": statistics.pstdev(targets),
    }


def _majority(task: TaskData) -> tuple[str, float] | None:
    if task.kind != "classification":
        return None
    ((most, _),) = Counter(example.label for example in task.train).most_common(1)
    return list(task.spec.labels)[most or 0], sum(e.label == most for e in task.test) / len(task.test)


# --- as a model reads them -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A stretch of tokens that a model reads."""

    name: str
    """What it is: 'text', 'prompt', 'answer', 'rejected'."""
    ids: tuple[int, ...]
    shown: str
    """The ids as text, special tokens included."""


def read_by_encoder(tokenizer: PreTrainedTokenizerBase, example: Example, max_length: int) -> tuple[Part, ...]:
    """What an encoder's head reads, cut to ``max_length`` tokens."""
    ids = tokenizer(example.text, truncation=True, max_length=max_length)["input_ids"]
    return (_part(tokenizer, "text", ids),)


def read_by_decoder(
    tokenizer: PreTrainedTokenizerBase, spec: TaskSpec, example: Example, max_length: int
) -> tuple[Part, ...]:
    """What a decoder reads and learns, cut to ``max_length`` tokens.

    Raises :class:`harness.errors.InputError` where the chat template leaves no room for a prompt.
    """
    from harness.tasks.encode import encode_examples
    from harness.tasks.pairs import encode_pair

    if spec.is_corpus:
        from harness.tasks.likelihood import blocks

        block = next(iter(blocks(tokenizer, [example.completion], max_length, apart=True)), [])
        return (_part(tokenizer, "text", block),)
    if example.rejected is not None:
        pair = encode_pair(tokenizer, example, max_length, spec.max_new_tokens)
        answers = {"prompt": pair.chosen.prompt, "answer": pair.chosen.completion, "rejected": pair.rejected.completion}
    else:
        (one,) = encode_examples(tokenizer, [example], max_length, spec.max_new_tokens)
        answers = {"prompt": one.prompt, "answer": one.completion}
    return tuple(_part(tokenizer, name, ids) for name, ids in answers.items())


def _part(tokenizer: PreTrainedTokenizerBase, name: str, ids: Sequence[int]) -> Part:
    shown = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return Part(name, tuple(ids), str(shown))
