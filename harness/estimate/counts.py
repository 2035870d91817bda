"""Trainable parameters as papers print them, counted again on models without weights."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import methods
from harness.estimate.meta import meta_base
from harness.models.spec import load_spec
from harness.networks.fresh import fresh_parameters


@dataclass(frozen=True)
class Published:
    """One row of the table: a paper's count, and the setting in which we count again."""

    source: str
    model: str
    published_method: str
    published: int
    method: str
    method_args: Mapping[str, Any]
    counted: int
    agrees: bool
    note: str
    """What the paper leaves open, if anything."""

    def recount(self) -> int:
        """Count now; nothing is downloaded."""
        return trainable_params(self.model, self.method, self.method_args)


def trainable_params(model: str, method: str, method_args: Mapping[str, Any]) -> int:
    """Parameters that ``method`` trains on ``model``, a name of the registry, built without weights.

    A classification head is left out, as the papers do, unless the whole model trains.
    """
    base = meta_base(load_spec(model), "float32")
    tuned = methods.apply(method, base, **method_args)
    head = sum(p.numel() for p in fresh_parameters(base, base.build())) if base.has_head and method != "full" else 0
    return tuned.trainable_params - head


def agree(counted: int, published: int) -> bool:
    """Whether ``counted`` is ``published`` to the printed precision; trailing zeros count as digits not printed."""
    digits = str(published)
    unit = 10 ** (len(digits) - len(digits.rstrip("0")))
    return bool(round(counted / unit) == published // unit)


def read(table: Path) -> Iterator[Published]:
    """The rows of a table of counts."""
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield Published(
                source=row["source"],
                model=row["model"],
                published_method=row["published_method"],
                published=int(row["published"]),
                method=row["method"],
                method_args=json.loads(row["method_args"]),
                counted=int(row["counted"]),
                agrees=row["agrees"] == "True",
                note=row["note"],
            )
