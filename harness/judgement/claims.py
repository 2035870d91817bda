"""What the papers say, as data: one YAML file per claim under ``claims/``, with a check that tables can pass or fail.

A check compares two selections of rows by one quantity, wherever both ran under the same conditions. It holds no code:
which methods, which quantity, which relation, and by how much. :mod:`harness.judgement.claim_verdicts` judges it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from harness import arguments, notebooks, specfile
from harness.catalog import METHODS, OBJECTIVES
from harness.errors import InputError, unknown
from harness.judgement.quantities import QUANTITIES, SCORE
from harness.trial import Frozen

FOLDER = "claims"

Relation = Literal["better", "worse", "equivalent", "not worse", "rises", "falls"]
"""Left against right; ``rises`` and ``falls`` say how left's lead over right changes with ``along``."""

_OneOrMore = str | tuple[str, ...]

#: Columns that a claim may restrict: conditions, and nothing that was measured.
_CONDITIONS = ("model", "model_family", "task", "task_kind", "objective", "dtype", "train_examples")


class Source(Frozen):
    """Where a claim stands, and in which words and numbers."""

    citation: str = Field(min_length=1, description="authors, year and address, such as arXiv:2106.09685")
    where: str = Field(min_length=1, description="section, table or figure")
    says: str = Field(min_length=1, description="what is measured there")


class Side(Frozen):
    """Which rows stand on one side. What is left out is the same on both sides."""

    method: _OneOrMore | None = Field(None, description="one method or several")
    method_args: dict[str, JsonValue] = Field(
        default_factory=dict, description="arguments that the rows have; a list gives alternatives"
    )
    objective: _OneOrMore | None = Field(None, description="one objective or several")
    variant: Literal["plain", "merged"] = Field("plain", description="for latency: as trained, or merged")

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for given, known, what in ((self.methods, METHODS, "method"), (self.objectives, OBJECTIVES, "objective")):
            for name in given:
                if name not in known:
                    raise unknown(what, name, known)
        for name in self.methods:
            for argument in self.method_args:
                if argument not in (declared := arguments.declared("methods", name)):
                    raise unknown(f"method_args: {name}", argument, declared)
        if self.method_args and not self.methods:
            raise ValueError("method_args need the method that takes them")
        return self

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods; empty where any will do."""
        return _several(self.method)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The objectives; empty where any will do."""
        return _several(self.objective)


class Alike(Frozen):
    """Rows are compared only where they do not differ much in another metric of the test split."""

    metric: str = Field(min_length=1, description="such as kl")
    factor: float = Field(gt=1, description="the larger value is at most this many times the smaller")


class Check(Frozen):
    """A claim as a predicate over tables."""

    quantity: str = Field(description="what is compared: score, or a cost")
    metric: str | None = Field(None, description="instead of the primary metric, another one of the test split")
    left: Side
    relation: Relation
    right: Side
    factor: float | None = Field(None, gt=1, description="better or worse by at least so many times; for ratios")
    margin: float = Field(
        0.01,
        ge=0,
        description="what makes no difference: a share of the metric's maximum, or of the right value of what has "
        "none; in its own unit for forgetting and for metrics that no task has, such as a win rate",
    )
    along: Literal["model_params", "train_examples"] | None = Field(None, description="for rises and falls")
    alike: Alike | None = None
    where: dict[str, tuple[JsonValue, ...]] = Field(default_factory=dict, description="column -> values that count")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.quantity not in QUANTITIES:
            raise unknown("quantity", self.quantity, QUANTITIES)
        for column in self.where:
            if column not in _CONDITIONS:
                raise unknown("where", column, _CONDITIONS)
        if (self.relation in ("rises", "falls")) != (self.along is not None):
            raise ValueError("'along' belongs to the relations rises and falls, and they need it")
        if self.metric is not None and self.quantity != SCORE:
            raise ValueError("'metric' belongs to the quantity score")
        if self.factor is not None and (
            self.relation not in ("better", "worse") or not QUANTITIES[self.quantity].ratio
        ):
            raise ValueError("'factor' belongs to better and worse, of a quantity that is compared by its ratio")
        if self.left == self.right:
            raise ValueError("left and right are the same")
        return self


class Claim(Frozen):
    """One sentence that somebody published, and how to check it."""

    name: str = Field(pattern=r"^[a-z0-9_]+$", description="the name of the file")
    statement: str = Field(min_length=1, description="the claim in one sentence")
    source: Source
    check: Check
    note: str | None = Field(None, description="what differs here from what the paper did")


def _several(value: _OneOrMore | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


def root() -> Path:
    """The folder of the claims: the checkout's own, or that of the wheel."""
    return notebooks.shipped(FOLDER)


def names() -> list[str]:
    """The claims under :func:`root`."""
    return sorted(path.stem for path in root().glob("*.yaml"))


def load(path: Path) -> Claim:
    """The claim in a file. Raises :class:`InputError`, in one line, for whatever is wrong with it."""
    claim = specfile.read(Claim, path)
    if claim.name != path.stem:
        raise InputError(f"{path}: name: '{claim.name}' is not the name of the file")
    return claim


def load_all(folder: Path | None = None) -> list[Claim]:
    """The claims of a folder, by default those of :func:`root`, by name. Raises :class:`InputError` as :func:`load`."""
    return [load(path) for path in sorted((folder or root()).glob("*.yaml"))]
