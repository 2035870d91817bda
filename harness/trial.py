"""A trial: the frozen specification of one execution of one notebook, and the id that follows from it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from harness.execution import Execution

#: Raised whenever a change makes new rows incomparable with old ones; it is part of every trial's id.
PROTOCOL_VERSION = 4

DType = Literal["float32", "bfloat16", "float16", "tf32"]


#: More than any budget; sizes beyond it overflow.
_LARGEST = 10**9


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ValueError("must be auto, cpu, cuda, or one of several such as cuda:1")
    return name


Device = Annotated[str, AfterValidator(_device)]


class Frozen(BaseModel):
    """Base of the specifications: immutable, and strict about names and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


#: Fields of a budget that hold several values.
_SEVERAL = ("probes", "latency_batches")


class Budget(Frozen):
    """What every method of a comparison gets alike (protocol, rule 1)."""

    train_examples: int = Field(
        256,
        gt=0,
        le=_LARGEST,
        description="examples drawn from the training split, the same for every method",
    )
    batch_size: int = Field(8, gt=0, le=_LARGEST, description="examples per optimiser step")
    epochs: int = Field(1, gt=0, le=_LARGEST, description="passes over the training examples")
    max_length: int = Field(
        128, gt=0, le=_LARGEST, description="tokens of prompt and completion together; longer examples are cut"
    )
    eval_examples: int | None = Field(
        None, gt=0, le=_LARGEST, description="examples scored per split; null scores all of them"
    )
    max_new_tokens: int | None = Field(
        None, gt=0, le=_LARGEST, description="tokens of an answer at most; null: as the task says"
    )

    probes: tuple[str, ...] = Field(
        (), description="suites that are asked before and after training, beside the task, such as retention"
    )

    latency_batches: tuple[Annotated[int, Field(gt=0, le=_LARGEST)], ...] = Field(
        (1,), description="numbers of sequences at which latency is measured; one is always among them"
    )

    @field_validator(*_SEVERAL, mode="before")
    @classmethod
    def _as_tuple(cls, values: Any) -> Any:
        """A notebook gives a list."""
        return tuple(values) if isinstance(values, list) else values

    @field_validator("probes")
    @classmethod
    def _sorted(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """In any order and with repetitions: the same suites are the same trial."""
        return tuple(sorted(set(names)))

    @field_validator("latency_batches")
    @classmethod
    def _with_one(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted({1, *sizes}))

    @property
    def train_steps(self) -> int:
        """Optimiser steps: the same number for every method."""
        return self.epochs * math.ceil(self.train_examples / self.batch_size)

    def columns(self) -> dict[str, Any]:
        """The budget as a table has it, by the names of its fields: several values are one text."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return {**fields, **{name: ", ".join(map(str, fields[name])) or None for name in _SEVERAL}}

    @classmethod
    def from_columns(cls, row: Mapping[str, Any]) -> Self:
        """Read what :meth:`columns` wrote. Raises LookupError or ValueError for a row without it."""
        fields = {name: row[name] for name in cls.model_fields}
        sizes = (fields["latency_batches"] or "").split(", ")
        probes = tuple(fields["probes"].split(", ")) if fields["probes"] else ()
        return cls(**{**fields, "probes": probes, "latency_batches": tuple(map(int, sizes))})

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what asks for nothing and was added after the first trials: it would give them all new ids."""
        written: dict[str, Any] = handler(self)
        if self.max_new_tokens is None:
            written.pop("max_new_tokens", None)
        if not self.probes:
            written.pop("probes", None)
        if self.latency_batches == (1,):
            written.pop("latency_batches", None)
        return written


class Trial(Frozen):
    """One execution of one notebook. Two equal specifications are one trial."""

    notebook: str = Field(description="notebook under notebooks/, without its ending, such as 'methods/lora'")
    method: str = Field(description="which parameters train")
    method_args: dict[str, JsonValue] = Field(default_factory=dict, description="arguments of the method")
    objective: str = Field(description="which loss trains them")
    objective_args: dict[str, JsonValue] = Field(default_factory=dict, description="arguments of the objective")
    model: str = Field(
        description="short name: of the registry, ORG/NAME of the hub, or the base name of an own folder"
    )
    task: str = Field(description="short name: of a task that comes along, or the one in a YAML file of one's own")
    model_revision: str | None = Field(
        None, description="which weights: the hub's revision, or 12 digits of a SHA-256; null: random ones"
    )
    task_version: str | None = Field(
        None, description="the task's version; of an own task also 12 digits of the SHA-256 of its files, '1+…'"
    )
    method_version: str | None = Field(
        None, description="of an own method, 12 digits of the SHA-256 of its file; null: the package's"
    )
    seed: int = Field(0, ge=0, lt=2**32)
    learning_rate: float | None = Field(None, gt=0, allow_inf_nan=False, description="null when nothing is trained")
    budget: Budget = Budget()
    dtype: DType = "float32"
    execution: Execution = Field(Execution(), description="how it trains: attention, packing, optimiser and the like")
    device: Device = Field("auto", description="'auto', 'cpu', 'cuda', 'cuda:1', …")
    parents: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="role -> ids of the trials that may fill it; the one that validation prefers does",
    )
    protocol_version: int = PROTOCOL_VERSION
    paths: dict[str, str] = Field(
        default_factory=dict,
        description="'model', 'task', 'method' -> what finds it where the name does not: the absolute path of an own "
        "file, or hub:ORG/NAME@COMMIT; no part of the identity: a path differs by host, and the commit is the revision",
    )

    @field_validator("parents", mode="before")
    @classmethod
    def _one_or_several(cls, parents: Any) -> Any:
        """A role with one candidate may hold its id alone, as :meth:`canonical_json` writes it."""
        if not isinstance(parents, Mapping):
            return parents
        return {role: (ids,) if isinstance(ids, str) else tuple(ids) for role, ids in parents.items()}

    @property
    def parent_ids(self) -> tuple[str, ...]:
        """Ids of all trials that it waits for, whatever their role."""
        return tuple(dict.fromkeys(trial_id for ids in self.parents.values() for trial_id in ids))

    def canonical_json(self) -> str:
        """What makes the trial this one, as JSON with sorted keys and no white space: equal trials, equal strings.

        :attr:`paths` are left out: the same files in another place make the same trial. Which of several candidates
        becomes a parent is an outcome, and no part of the trial.
        """
        left_out = {"paths"}
        if self.protocol_version < 2:  # whose trials had no versions: their ids stay what they were
            left_out |= {"model_revision", "task_version"}
        if self.method_version is None:  # later than the first trials, whose ids stay what they were
            left_out |= {"method_version"}
        if not self.execution.asked:
            left_out |= {"execution"}
        document = self.model_dump(mode="json", exclude=left_out)
        document["parents"] = {role: ids if len(ids) > 1 else ids[0] for role, ids in document["parents"].items()}
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def address(self, axis: Literal["model", "task", "method"]) -> str:
        """What finds it from any folder: an own file's absolute path, a hub's commit, else the name."""
        name: str = getattr(self, axis)
        return self.paths.get(axis, name)

    @property
    def trial_id(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of :meth:`canonical_json`."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()[:12]

    def parameters(self) -> dict[str, Any]:
        """What is passed to the notebook's ``parameters`` cell, by name."""
        common = {
            "model": self.address("model"),
            "task": self.address("task"),
            "objective": self.objective,
            "seed": self.seed,
            "learning_rate": self.learning_rate,
            "budget": self.budget.model_dump(mode="json"),
            "dtype": self.dtype,
            "device": self.device,
        }
        return {**common, **self.method_args, **self.objective_args}

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a specification written by :meth:`canonical_json` (without :attr:`paths`) or ``model_dump_json``."""
        return cls.model_validate_json(text)
