"""How a trial trains, not what it learns: the fields of a sweep's ``execution`` block, and what to do if one fails.

The defaults are what trials did before there was a choice, so they leave no trace in a trial's id. A row says beside
each field what was active when the trial trained (``active_*``), and by what evidence: a library that falls back in
silence leads to a skipped row instead of a number under a wrong name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from harness.files import TRIAL_FILE

#: More micro-batches than any batch has examples.
_LARGEST = 10**6


class NotActive(RuntimeError):
    """What was asked for is not what ran. The trial ends as a skipped row with this reason."""


class Execution(BaseModel):
    """How a trial trains. Every field is an axis of a sweep."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    attention: Literal["auto", "sdpa", "eager", "flash_attention_2", "flex_attention"] = Field(
        "auto", description="implementation of attention, by transformers' name; auto: as transformers chooses"
    )
    packing: bool = Field(False, description="whether the examples of a batch share one row instead of being padded")
    shared_prompts: bool = Field(
        False, description="whether a packed row holds once what the prompts of all its examples begin with"
    )
    loss: Literal["plain", "chunked", "liger"] = Field(
        "plain",
        description="how the cross-entropy of tokens is computed; chunked, liger: never all logits at once",
    )
    gradient_checkpointing: bool = Field(
        False, description="whether each layer keeps its input alone and is computed again in the backward pass"
    )
    accumulation: int = Field(
        1, ge=1, le=_LARGEST, description="parts that a batch is computed in, one after the other, before one update"
    )
    compile: bool = Field(False, description="whether torch.compile compiles each layer")
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor", "lion"] = Field(
        "adamw", description="optimiser; adamw: in 32 bits, or what the method itself names"
    )

    @property
    def asked(self) -> dict[str, Any]:
        """The fields that differ from their defaults, by name."""
        return {name: value for name, value in dict(self).items() if value != FIELDS[name].default}

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Only what was asked for: a field that is added later gives no trial another id."""
        written: dict[str, Any] = handler(self)
        return {name: value for name, value in written.items() if name in self.asked}


#: The fields of :class:`Execution` by name.
FIELDS = Execution.model_fields


def of_trial(trial_dir: str | Path | None) -> Execution:
    """How the trial in this folder is to train; as usual without a folder, or where none is planned there."""
    file = Path(trial_dir or "", TRIAL_FILE)
    if trial_dir is None or not file.is_file():
        return Execution()
    trial = json.loads(file.read_text(encoding="utf-8"))["row"]["trial"]
    return Execution.model_validate(trial.get("execution", {}))
