"""Any other method of PEFT, by the name of its type and its own configuration (Mangrulkar et al. 2022,
https://github.com/huggingface/peft)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from peft import PeftConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from pydantic import JsonValue

from harness.errors import InputError, unknown
from harness.models.load import Base
from harness.networks.peft_network import with_peft
from harness.networks.tuned import Tuned

#: The types of PEFT 0.21; docs/peft_types.md says which of them work on which architectures.
Kind = Literal[
    "ADALORA", "ADAMSS", "ADAPTION_PROMPT", "BEFT", "BOFT", "C3A", "CARTRIDGE", "CPT", "DEFT", "DELORA",
    "FOURIERFT", "FROD", "GLORA", "GRALORA", "HIRA", "HRA", "IA3", "LILY", "LN_TUNING", "LOHA", "LOKR",
    "LORA", "MISS", "MULTITASK_PROMPT_TUNING", "OFT", "OSF", "PEANUT", "POLY", "PREFIX_TUNING",
    "PROMPT_TUNING", "PSOFT", "PVERA", "P_TUNING", "RANDLORA", "ROAD", "SHADOW", "SHIRA", "SUPERTUNING",
    "TINYLORA", "TRAINABLE_TOKENS", "UNILORA", "VBLORA", "VERA", "WAVEFT", "XLORA",
]  # fmt: skip


def apply(
    base: Base,
    peft_type: Kind = "LN_TUNING",
    config: Mapping[str, JsonValue] | None = None,
    train_steps: int | None = None,
) -> Tuned:
    """The PEFT type called ``peft_type``, such as 'ADALORA' or 'VERA', with the fields of its configuration.

    ``train_steps`` is the length of the training, for types that follow a schedule (AdaLoRA's rank budget). Raises
    :class:`harness.errors.InputError` for an unknown type or field, and for what PEFT refuses.
    """
    fields = dict(config or {})
    cls = _config_class(peft_type)
    known = {field.name for field in dataclasses.fields(cls)}
    for name in fields:
        if name not in known:
            raise unknown(f"peft.config ({peft_type})", name, known)
    if "total_step" in known and train_steps is not None:
        fields = {"total_step": train_steps, **fields}
    try:
        adapter_config = cls(task_type=base.peft_task_type, **fields)
    except (ValueError, TypeError) as error:
        raise InputError(f"peft.config ({peft_type}): {error}") from error
    return with_peft(base, adapter_config)


def _config_class(peft_type: str) -> type[PeftConfig]:
    by_name = {kind.value: cls for kind, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items() if isinstance(kind, PeftType)}
    if peft_type not in by_name:
        raise unknown("peft.peft_type", peft_type, by_name)
    cls: type[PeftConfig] = by_name[peft_type]
    return cls
