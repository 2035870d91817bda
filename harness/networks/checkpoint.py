"""Read what :meth:`harness.networks.tuned.Tuned.save` wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from peft import PeftConfig, PeftModel, PromptLearningConfig
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file

from harness.networks.peft_network import place_virtual_tokens
from harness.networks.tuned import DESCRIPTION_FILE, TENSORS_FILE, Tuned


@dataclass(frozen=True)
class Description:
    """What a checkpoint's tensors belong to."""

    method: str
    args: dict[str, Any]
    model: str
    file: str | None = None
    """Path of a method of a user's own; None: the package's."""
    version: str | None = None
    """12 digits of the SHA-256 of that file."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the description of the checkpoint in ``folder``; OSError or ValueError if there is none."""
        return cls(**json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8")))


def restore(tuned: Tuned, folder: Path) -> Tuned:
    """Copy the stored tensors into ``tuned``, fresh from its method; ValueError if they do not fit."""
    if isinstance(tuned.model, PeftModel):
        return _with_adapter(tuned, folder)
    tensors = load_file(folder / TENSORS_FILE) if tuned.stored else {}
    if missing := sorted(set(tuned.stored) ^ set(tensors)):
        raise ValueError(f"{folder} does not fit the method: {', '.join(missing[:3])} on one side only")
    with torch.no_grad():
        for name, tensor in tuned.stored.items():
            tensor.copy_(tensors[name])
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
        place_virtual_tokens(model, tuned.base)
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
