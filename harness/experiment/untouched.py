"""What a network that no trial changes answers: it is evaluated once, and its answers are in the cache.

The key covers everything that the answers follow from: the examples and the task's specification, the weights, the
device with its number of threads, the libraries, and the source of the rooms that answer. So a changed file, a new
version or another machine asks anew. Two trials that ask at the same time wait for one another.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from harness import methods
from harness.files import source_digest
from harness.measure.environment import accelerator
from harness.models.load import Base
from harness.networks.tuned import Tuned
from harness.sources import cache, own_files
from harness.tasks.data import TaskData
from harness.tasks.evaluate import Answer, Evaluation, evaluate
from harness.tasks.metrics import Score
from harness.trial import PROTOCOL_VERSION

_FILE = "evaluation.json"
#: Rooms of the package that an answer and its score follow from.
_ROOMS = ("models", "networks", "methods", "tasks")


def evaluation(
    base: Base,
    data: TaskData,
    split: str,
    max_length: int,
    network: Callable[[], Tuned] | None = None,
    checkpoint: Path | None = None,
) -> Evaluation:
    """:func:`harness.tasks.evaluate.evaluate` of the untouched base, from the cache if it holds that.

    ``network`` builds the network where the cache does not; ``checkpoint`` is the folder of the one that it loads, if
    that is not the base. Raises :class:`harness.errors.InputError` when the cache may not be written.
    """

    def ask(folder: Path) -> None:
        tuned = methods.apply("baseline", base) if network is None else network()
        answers = evaluate(tuned, data, split, max_length)
        (folder / _FILE).write_text(json.dumps(dataclasses.asdict(answers)), encoding="utf-8")

    key = _key(base, data, split, max_length, checkpoint)
    folder = cache.build_once(cache.root() / "untouched" / key, ask)
    return _read(json.loads((folder / _FILE).read_bytes()))


def release(device: torch.device) -> None:
    """Free the memory of networks that nobody holds: what is measured from here on is the trial's own."""
    gc.collect()  # networks hold themselves by their hooks
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _read(document: Mapping[str, Any]) -> Evaluation:
    answers = ({**answer, "references": tuple(answer["references"])} for answer in document["answers"])
    return Evaluation(
        split=document["split"],
        scores=tuple(Score(**score) for score in document["scores"]),
        answers=tuple(Answer(**answer) for answer in answers),
        examples=tuple(document["examples"]),
    )


def _key(base: Base, data: TaskData, split: str, max_length: int, checkpoint: Path | None) -> str:
    examples = [dataclasses.asdict(example) for example in getattr(data, split)]
    # The seed draws a fresh head and random weights; the scale of an encoder's numbers is that of the training split.
    drawn = base.spec.is_random or base.has_head
    scale = dataclasses.asdict(data.scale) if base.learns_number else None
    parts = {
        "asked": [split, max_length, data.spec.model_dump_json(), examples],
        "model": [base.spec.address, _weights(base), base.number_format, base.attention],
        "head": [base.seed, base.labels, base.scalar, scale] if drawn else None,
        "checkpoint": None if checkpoint is None else _digest(checkpoint),
        "device": [str(base.device), accelerator(base.device), torch.get_num_threads()],
        "versions": [PROTOCOL_VERSION, torch.__version__, transformers.__version__, source_digest(_ROOMS)],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _weights(base: Base) -> str | None:
    """Which weights the base has; None for random ones."""
    return base.spec.revision() or (None if base.checkpoint is None else _digest(base.checkpoint))


def _digest(folder: Path) -> str:
    return own_files.digest((file.name, file) for file in folder.iterdir() if file.is_file())
