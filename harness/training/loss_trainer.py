"""The trainer of every objective that is a loss of a batch: it counts tokens, and can take a batch in parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerControl

from harness.tasks.logprobs import Batch
from harness.training.accumulation import Weigh, shares, together
from harness.training.batches import SimilarLengths
from harness.training.packing import whole_tokens
from harness.training.schedule import Scheduled
from harness.training.sharding import Sharding, weight_of_this_part, world_size

#: From the network and a batch to the loss to minimise and what else there is to see, by name; all scalars.
Loss = Callable[[Any, Batch], tuple[torch.Tensor, Mapping[str, torch.Tensor]]]


class Counting:
    """Mixin of a ``Trainer``: counts the real tokens of each batch."""

    #: The masks of a batch that together cover each row once. Batches of TRL hold further ones, of parts of a row.
    row_masks: tuple[str, ...] = ("attention_mask", "decoder_attention_mask")
    batch_tokens: list[torch.Tensor]
    batch_slots: list[int]
    first_batch: tuple[Batch, ...]
    """The parts of the first batch."""

    def count(self, *parts: Batch) -> None:
        """Count the tokens of a batch, and the places that they and the padding take."""
        if not self.batch_tokens:
            self.first_batch = parts
        self.batch_tokens.append(torch.stack([real_tokens(part, self.row_masks) for part in parts]).sum())
        ids = {mask.replace("attention_mask", "input_ids") for mask in self.row_masks}
        self.batch_slots.append(sum(value.numel() for part in parts for name, value in part.items() if name in ids))

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Count the batch, then compute the loss."""
        self.count(inputs)
        return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]


def real_tokens(batch: Batch, row_masks: Sequence[str] = Counting.row_masks) -> torch.Tensor:
    """Tokens of a batch's examples, padding left out: the sum over ``row_masks`` (a batch without padding has none).

    A packed row may hold once what several of its examples begin with; it counts for each. Stays a tensor: reading it
    here would make an accelerator wait.
    """
    if "position_ids" in batch:
        return whole_tokens(batch["position_ids"])
    masks = [batch[name] for name in row_masks if name in batch]
    return torch.stack([m.sum() for m in masks]).sum() if masks else torch.tensor(batch["input_ids"].numel())


class LossTrainer(Counting, Scheduled, Sharding, Trainer):
    """A ``Trainer`` that minimises a :data:`Loss` and leaves the printing to the notebook."""

    objective_loss: Loss
    weigh: Weigh
    ordered: bool
    lengths: Sequence[int] | None
    control: TrainerControl
    _seen: Mapping[str, torch.Tensor]

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self.count(inputs)
        loss, self._seen = self.objective_loss(model, inputs)
        return loss * weight_of_this_part(inputs) if world_size() > 1 else loss

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Forward and backward of a batch, or of its parts one after the other; returns the loss of the batch."""
        if not isinstance(inputs, list):
            whole: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
            return whole
        model.train()
        parts = self._prepare_inputs(inputs)
        self.count(*parts)
        of_parts, losses, seen = shares(parts, self.weigh), [], []
        for part, share in zip(parts, of_parts, strict=True):
            loss, shown = self.objective_loss(model, part)
            self.accelerator.backward(loss * share)
            losses.append((loss * share).detach())
            seen.append(shown)
        self._seen = together(seen, of_parts)
        return torch.stack(losses).sum()

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        if self.ordered:
            return SequentialSampler(self.train_dataset)
        if self.lengths is None:
            return super()._get_train_sampler(*args, **kwargs)
        return SimilarLengths(self.lengths, self.args.train_batch_size * world_size(), self.args.seed)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        seen = {name: float(value) for name, value in self._seen.items()} if "loss" in logs else {}
        self.state.log_history.append({**logs, **seen, "step": self.state.global_step})
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)
