"""The result of applying a method: a network of which the declared parameters train; how it is saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from peft import PeftConfig, PeftModel, PeftType, PromptLearningConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from torch import nn

from harness.errors import InputError
from harness.methods.merging import Merge, can_merge, merged_peft
from harness.methods.soft_prompt import generate_behind_padding, pool_real_tokens
from harness.models.load import Base

_TENSORS = "trained.safetensors"
_DESCRIPTION = "method.json"


#: From the network and a batch to a scalar.
OwnLoss = Callable[[nn.Module, Mapping[str, torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class Tuned:
    """A network with the parameters of one method ready to train (or trained)."""

    base: Base
    method: str
    args: Mapping[str, Any]
    model: nn.Module
    note: str | None = field(default=None)
    """What a reader of the row must know, such as biases that the method had to add."""
    optimizer: str = "adamw_torch_fused"
    """The method's optimiser, by transformers' name (``TrainingArguments.optim``)."""
    after_step: Callable[[int], None] | None = field(default=None, compare=False)
    """Called after each optimiser step with the number of steps done, while the gradients are still there."""
    merge: Merge | None = field(default=None, compare=False)
    """Gives, for the time of a ``with`` block, the plain network with the trained change folded into its weights;
    null where that cannot be done."""
    own_loss: OwnLoss | None = field(default=None, compare=False)
    """What is minimised instead of the objective's loss; null: the objective's."""
    loss_term: Callable[[], torch.Tensor] | None = field(default=None, compare=False)
    """A scalar that the method adds to the objective's loss; null: nothing. A loss that the network computes itself
    from labels has it already."""
    also_stored: tuple[str, ...] = ()
    """Names of frozen parameters and of buffers that belong to the task, and so to its checkpoint."""

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

    @property
    def stored(self) -> dict[str, torch.Tensor]:
        """The tensors that make up the checkpoint of a model without a format of its own, by name."""
        frozen = {name: t for name, t in _tensors(self.model).items() if name in set(self.also_stored)}
        return {**self.trainable, **frozen}

    def save(self, folder: str | Path) -> int:
        """Write what has to be stored for this task; returns its bytes on disk.

        A PEFT model writes PEFT's own adapter format, so that PEFT loads it; any other the tensors :attr:`stored`.
        Nothing trained, nothing stored: 0.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(self.model, PeftModel):
            # Without this, PEFT asks a model hub whether the vocabulary changed.
            self.model.save_pretrained(str(folder), save_embedding_layers=False)
            (folder / "README.md").unlink(missing_ok=True)
        elif stored := self.stored:
            save_file({name: t.detach().contiguous() for name, t in stored.items()}, folder / _TENSORS)
        written = sum(path.stat().st_size for path in folder.iterdir())
        description = {"method": self.method, "args": dict(self.args), "model": self.base.spec.name}
        (folder / _DESCRIPTION).write_text(json.dumps(description, sort_keys=True))
        return written


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


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
        return _with_adapter(tuned, folder)
    found = load_file(folder / _TENSORS) if tuned.stored else {}
    if missing := sorted(set(tuned.stored) ^ set(found)):
        raise ValueError(f"{folder} does not fit the method: {', '.join(missing[:3])} on one side only")
    with torch.no_grad():
        for name, tensor in tuned.stored.items():
            tensor.copy_(found[name])
    return tuned


def _with_adapter(tuned: Tuned, folder: Path) -> Tuned:
    """``tuned`` with the stored adapter, trainable."""
    model = tuned.model
    if isinstance(model.peft_config["default"], PromptLearningConfig):
        # Only the embeddings are stored: the network that they were computed by (prefix tuning's MLP, p-tuning's
        # encoder) has done its work. What is loaded trains on without it.
        model = PeftModel.from_pretrained(model.get_base_model(), str(folder)).eval()
        model.prompt_encoder.requires_grad_(True)
        for module in model.modules():
            if isinstance(module, ModulesToSaveWrapper):
                module.modules_to_save.requires_grad_(True)
        _place_virtual_tokens(model, tuned.base)
        return replace(tuned, model=model)
    if ranks := getattr(PeftConfig.from_pretrained(str(folder)), "rank_pattern", None):
        # Training may have changed the shapes (AdaLoRA); PEFT reads the new ones from the configuration. What trains on
        # from here keeps them: the budget of ranks is spent.
        model.peft_config["default"].rank_pattern = ranks
        tuned = replace(tuned, after_step=None)
    model.load_adapter(str(folder), "default", is_trainable=True)
    model.set_adapter("default")
    model.eval()
    return tuned


def _place_virtual_tokens(model: PeftModel, base: Base) -> None:
    config = model.peft_config["default"]
    if isinstance(config, PromptLearningConfig) and config.peft_type in (PeftType.PROMPT_TUNING, PeftType.P_TUNING):
        generate_behind_padding(model)
        if base.kind == "encoder":
            pool_real_tokens(model)


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Parameters of a fresh classification head, found by its usual names; none on a language model."""
    heads = (getattr(model, name, None) for name in ("classifier", "score", "classification_head"))
    return [p for head in heads if isinstance(head, nn.Module) for p in head.parameters()]


def train_only(model: nn.Module, parameters: Iterable[nn.Parameter], base: Base) -> None:
    """Freeze everything but ``parameters`` and the fresh classification head, which no method can leave untrained."""
    model.requires_grad_(False)
    for parameter in [*parameters, *(head_parameters(model) if base.has_head else [])]:
        parameter.requires_grad_(True)


def with_peft(
    base: Base,
    method: str,
    args: Mapping[str, Any],
    config: PeftConfig | Callable[[nn.Module], PeftConfig],
    *,
    optimizer: str = "adamw_torch_fused",
    **load_args: Any,
) -> Tuned:
    """Build the base and wrap it with PEFT; the same seed gives the same initial adapter.

    ``config`` may be a function of the network, where the adapter's places are found by structure. Raises
    :class:`harness.errors.InputError` when PEFT has no way to put this adapter into this architecture.
    """
    model = base.build(**load_args)
    torch.manual_seed(base.seed)
    if not isinstance(config, PeftConfig):
        config = config(model)
    try:
        model = get_peft_model(model, config, low_cpu_mem_usage=base.device.type == "meta").eval()
    except (ValueError, TypeError, KeyError, NotImplementedError, AttributeError) as error:
        kind = config.peft_type.value if hasattr(config.peft_type, "value") else config.peft_type
        raise InputError(
            f"{method}: PEFT's {kind} on {model.config.model_type}: {str(error).splitlines()[0]}"
        ) from error
    _place_virtual_tokens(model, base)
    # Rank budgets that are allocated while training goes on (AdaLoRA).
    allocate = getattr(model.base_model, "update_and_allocate", None)
    return Tuned(
        base,
        method,
        args,
        model,
        optimizer=optimizer,
        after_step=allocate,
        merge=partial(merged_peft, model) if can_merge(model) else None,
        loss_term=partial(_added_to_a_loss, model.base_model) if _adds_to_a_loss(model.base_model) else None,
    )


def _adds_to_a_loss(tuner: nn.Module) -> bool:
    """Whether a tuner of PEFT does more than to pass a batch on: AdaLoRA's adds its orthogonality to the loss."""
    return isinstance(tuner, BaseTuner) and type(tuner).forward is not BaseTuner.forward


def _added_to_a_loss(tuner: nn.Module) -> torch.Tensor:
    """What the tuner adds to a loss that the network has computed, asked of it with a loss of 0."""
    zero = torch.zeros((), device=next(tuner.parameters()).device)
    with mock.patch.object(tuner.model, "forward", lambda: SimpleNamespace(loss=zero)):
        added: torch.Tensor = tuner.forward().loss
    return added
