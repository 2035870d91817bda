"""The result of applying a method: a network of which the declared parameters train; how it is saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import nn

from harness.files import CHECKSUMS_FILE, version_of, write_checksums
from harness.models.load import Base
from harness.networks.fresh import fresh_parameters
from harness.networks.merging import Merge

TENSORS_FILE = "trained.safetensors"
DESCRIPTION_FILE = "method.json"


#: From the network and a batch to a scalar.
OwnLoss = Callable[[nn.Module, Mapping[str, torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class Tuned:
    """A network with the parameters of one method ready to train (or trained)."""

    base: Base
    model: nn.Module
    method: str = ""
    """Name of the method, as :func:`harness.methods.apply` notes it."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of the method, with defaults."""
    file: str | None = None
    """Path of the user's own file with the method; None: the package's."""
    note: str | None = field(default=None)
    """A note for readers of the row, such as biases that the method had to add."""
    optimizer: str = "adamw_torch_fused"
    """The method's optimiser, by transformers' name (``TrainingArguments.optim``)."""
    after_step: Callable[[int], None] | None = field(default=None, compare=False)
    """Called after each optimiser step with the number of steps so far, before the gradients are cleared."""
    merge: Merge | None = field(default=None, compare=False)
    """For a ``with`` block, gives the plain network with the trained change in its weights; None: impossible."""
    own_loss: OwnLoss | None = field(default=None, compare=False)
    """A loss to minimise instead of the objective's; None: the objective's own."""
    loss_term: Callable[[], torch.Tensor] | None = field(default=None, compare=False)
    """A scalar that the method adds to the objective's loss; None: nothing.

    A loss that the network computes from labels contains it already.
    """
    also_stored: tuple[str, ...] = ()
    """Names of frozen parameters and of buffers that belong to the task, and so to its checkpoint."""

    def __repr__(self) -> str:
        """How much of the network trains, and the note."""
        count, total = self.trainable_params, self.total_params
        share = 100 * count / total
        # Two decimals, or one digit of what they would round to nothing.
        text = f"{share:.2f}" if share >= 0.01 else f"{share:.0e}" if share else "0"
        line = f"{count:,} of {total:,} parameters train ({text} %)"
        return line if self.note is None else f"{line}\n{self.note}"

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that an optimiser step may change, by name; tied ones once."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @property
    def trainable_params(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.trainable.values())

    @property
    def trainable_formats(self) -> str | None:
        """Names of the number formats of the trained parameters, such as 'float32'; None if nothing trains."""
        names = {str(parameter.dtype).removeprefix("torch.") for parameter in self.trainable.values()}
        return " ".join(sorted(names)) or None

    @property
    def total_params(self) -> int:
        """Number of parameters, with those that the method added; a packed 4-bit weight counts its elements."""
        return sum(_elements(p) for p in self.model.parameters())

    @property
    def stored(self) -> dict[str, torch.Tensor]:
        """The tensors of the checkpoint by name, for a model without a format of its own."""
        frozen = {name: t for name, t in _tensors(self.model).items() if name in set(self.also_stored)}
        return {**self.trainable, **frozen}

    def save(self, folder: str | Path) -> int:
        """Write the checkpoint for this task; returns its bytes on disk.

        A PEFT model is written in PEFT's own adapter format, for PEFT to load; any other as the tensors :attr:`stored`.
        If nothing trained, nothing is stored: 0. ``SHA256SUMS`` has the hash of every file.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in (DESCRIPTION_FILE, CHECKSUMS_FILE):  # an earlier attempt's, which would count as bytes of this one
            (folder / name).unlink(missing_ok=True)
        if isinstance(self.model, PeftModel):
            # Without this, PEFT asks a model hub whether the vocabulary changed.
            self.model.save_pretrained(str(folder), save_embedding_layers=False)
            (folder / "README.md").unlink(missing_ok=True)
        elif stored := self.stored:
            save_file({name: t.detach().contiguous() for name, t in stored.items()}, folder / TENSORS_FILE)
        written = sum(path.stat().st_size for path in folder.iterdir())
        description = {"method": self.method, "args": dict(self.args), "model": self.base.spec.name}
        if self.file is not None:
            own = Path(self.file).expanduser().absolute()
            description |= {"file": str(own), "version": version_of(own)}
        (folder / DESCRIPTION_FILE).write_text(json.dumps(description, sort_keys=True))
        write_checksums(folder)
        return written


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _elements(parameter: nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


def train_only(model: nn.Module, parameters: Iterable[nn.Parameter], base: Base) -> None:
    """Freeze everything but ``parameters`` and the fresh layers, which every method has to train."""
    model.requires_grad_(False)
    for parameter in [*parameters, *fresh_parameters(base, model)]:
        parameter.requires_grad_(True)
