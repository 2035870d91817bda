"""The result of applying a method: a network of which the declared parameters train; how it is saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from harness.models.load import Base

_TENSORS = "trained.safetensors"
_DESCRIPTION = "method.json"


@dataclass(frozen=True)
class Tuned:
    """A network with the parameters of one method ready to train (or trained)."""

    base: Base
    method: str
    args: Mapping[str, Any]
    model: nn.Module
    note: str | None = field(default=None)
    """What a reader of the row must know, such as biases that the method had to add."""

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that an optimiser step may change, by name; tied ones once."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @property
    def trainable_params(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.trainable.values())

    @property
    def total_params(self) -> int:
        """Number of parameters, those that the method added included; a packed 4-bit weight counts its elements."""
        return sum(_elements(p) for p in self.model.parameters())

    def save(self, folder: str | Path) -> int:
        """Write what has to be stored for this task; returns its bytes on disk.

        A PEFT model writes PEFT's own adapter format, so that PEFT loads it; any other the tensors that trained.
        Nothing trained, nothing stored: 0.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(self.model, PeftModel):
            # Without this, PEFT asks a model hub whether the vocabulary changed.
            self.model.save_pretrained(str(folder), save_embedding_layers=False)
            (folder / "README.md").unlink(missing_ok=True)
        elif self.trainable:
            save_file({name: p.detach().contiguous() for name, p in self.trainable.items()}, folder / _TENSORS)
        stored = sum(path.stat().st_size for path in folder.iterdir())
        description = {"method": self.method, "args": dict(self.args), "model": self.base.spec.name}
        (folder / _DESCRIPTION).write_text(json.dumps(description, sort_keys=True))
        return stored


def _elements(parameter: nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


def load(base: Base, folder: str | Path) -> Tuned:
    """Rebuild from ``base`` what :meth:`Tuned.save` wrote: a fresh network, with the trained tensors put in.

    Raises ValueError when the folder belongs to another model, or lacks a tensor.
    """
    from harness.methods import apply

    folder = Path(folder)
    description = json.loads((folder / _DESCRIPTION).read_text())
    if description["model"] != base.spec.name:
        raise ValueError(f"{folder} was trained on {description['model']}, not on {base.spec.name}")
    tuned = apply(description["method"], base, **description["args"])
    if isinstance(tuned.model, PeftModel):
        tuned.model.load_adapter(str(folder), "default", is_trainable=True)
        tuned.model.set_adapter("default")
        tuned.model.eval()
        return tuned
    stored = load_file(folder / _TENSORS) if tuned.trainable else {}
    if missing := sorted(set(tuned.trainable) ^ set(stored)):
        raise ValueError(f"{folder} does not fit the method: {', '.join(missing[:3])} on one side only")
    with torch.no_grad():
        for name, parameter in tuned.trainable.items():
            parameter.copy_(stored[name])
    return tuned


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Parameters of a fresh classification head, found by its usual names; none on a language model."""
    heads = (getattr(model, name, None) for name in ("classifier", "score", "classification_head"))
    return [p for head in heads if isinstance(head, nn.Module) for p in head.parameters()]


def train_only(model: nn.Module, parameters: Iterable[nn.Parameter], base: Base) -> None:
    """Freeze everything but ``parameters`` and the fresh classification head, which no method can leave untrained."""
    model.requires_grad_(False)
    for parameter in [*parameters, *(head_parameters(model) if base.has_head else [])]:
        parameter.requires_grad_(True)


def with_peft(base: Base, method: str, args: Mapping[str, Any], config: PeftConfig, **load_args: Any) -> Tuned:
    """Build the base and wrap it with PEFT; the same seed gives the same initial adapter."""
    model = base.build(**load_args)
    torch.manual_seed(base.seed)
    return Tuned(base, method, args, get_peft_model(model, config).eval())
