"""A test helper: a byte-level Llama of two layers and toy data, so that every objective runs in well under a second."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from harness.models.load import Base
from harness.models.spec import ModelSpec, RandomSource
from harness.tasks.data import Example, TaskData
from harness.tasks.spec import TaskSpec
from harness.training.trainer import Settings
from harness.trial import Budget

_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 259,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
    # Wide enough for a frozen output layer to favour one token.
    "initializer_range": 0.15,
}


@functools.cache
def _checkpoint() -> tempfile.TemporaryDirectory[str]:
    """The toy network on disk, because bitsandbytes quantises while it loads; removed when the tests end."""
    folder = tempfile.TemporaryDirectory(prefix="toy-")
    torch.manual_seed(1)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**_SHAPE)).save_pretrained(folder.name)
    return folder


def base(**changes: Any) -> Base:
    """The toy network; the same weights every time."""
    fields: dict[str, Any] = {
        "spec": ModelSpec(
            name="toy", family="toy", architecture="llama", kind="decoder", source=RandomSource(random=True)
        ),
        "tokenizer": transformers.ByT5Tokenizer(extra_ids=0),
        "checkpoint": Path(_checkpoint().name),
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "seed": 1,
    }
    return Base(**{**fields, **changes})


def example(prompt: str, completion: str, rejected: str | None = None, **fields: str) -> Example:
    """One example without a row behind it."""
    return Example(prompt, prompt, completion, (completion,), None, rejected, fields)


def data(kind: str, train: Sequence[Example], test: Sequence[Example] = (), **changes: Any) -> TaskData:
    """A task that holds just these examples."""
    spec = {
        "name": "toy",
        "kind": kind,
        "source": {"local": "none"},
        "prompt": "" if kind == "corpus" else "{p}",
        "completion": "{label_word}" if kind == "classification" else "{c}",
        "rejected": "{r}" if kind == "preference" else None,
        "splits": {"validation": 1, "test": 1},
        "max_new_tokens": 4,
    }
    held = tuple(test or train)
    return TaskData(TaskSpec.model_validate({**spec, **changes}, strict=False), tuple(train), held, held)


def settings(learning_rate: float = 1e-3, **budget: Any) -> Settings:
    """A budget of a few steps."""
    return Settings(Budget(**{"train_examples": 8, "batch_size": 4, "max_length": 48, **budget}), learning_rate)


#: Chosen answers hold a 'y', rejected ones an 'n': one letter tells them apart.
PAIRS = tuple(
    example(f"say {word}:", "y" * size, "n" * size) for word in ("ant", "bee", "cow", "dog") for size in (3, 5)
)
