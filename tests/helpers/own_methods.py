"""A test helper: a file with a method of a user's own, and a sweep over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

NORMS = '''\
"""Only the normalisation layers train."""

from typing import Literal

from harness.arguments import Count, Word
from harness.errors import InputError
from harness.networks.tuned import Tuned, train_only

Kind = Literal["all", "weight"]


def apply(base, layer_types: Word = "norm", tensors: Kind = "all", times: Count = 1, sizes=[1, 2], train_steps=None):
    model = base.build()
    layers = [layer for layer in model.modules() if layer_types in type(layer).__name__.lower()]
    if not layers:
        raise InputError(f"layer_types: no layer is called '{layer_types}'")
    train_only(model, [p for layer in layers for p in layer.parameters(recurse=False)], base)
    return Tuned(base, model)
'''


def write(folder: Path, text: str = NORMS, name: str = "norms.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def write_sweep(folder: Path, **changes: Any) -> Path:
    """A sweep file in ``folder`` over the method beside it."""
    document = {
        "name": "mine",
        "models": ["minilm-l6-22m"],
        "tasks": ["trec"],
        "budget": {"train_examples": 8, "batch_size": 4, "max_length": 32},
        "methods": {"./norms.py": {"learning_rate": 1e-3}},
        **changes,
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path
