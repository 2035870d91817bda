"""The perplexity of answers under the model that no trial changed, kept beside the tables.

A judge may be pleased by what is no language any more. The untouched model is not: an answer that it finds far more
surprising than those of the other methods is one to read (Stiennon et al. 2020, arXiv:2009.01325, section 4.3, on
policies that exploit what judges them). A method that learnt another style is more surprising, too.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.errors import InputError
from harness.files import write_atomically
from harness.results.files import Stored, Tables, find, where

FILE = "surprises.jsonl"
"""Beside the tables: one JSON object a line, with the keys of :class:`Surprise`."""

TABLE = "surprises"
"""The name under which :func:`add` puts the file among the tables."""

#: Kinds of tasks whose answers are free text.
FREE = ("generation", "preference")


@dataclass(frozen=True)
class Surprise:
    """What an answer costs the untouched model."""

    model: str
    digest: str
    """Of the prompt and the answer."""
    nats: float
    tokens: int


def digest(*texts: str) -> str:
    """Names a prompt with its answers, whichever trials gave them."""
    text = json.dumps(texts, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def read(folder: Path) -> list[Surprise]:
    """What was measured so far. Raises :class:`InputError` for a file that cannot be read."""
    path = find(folder) / FILE
    if not path.exists():
        return []
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [
            Surprise(str(line["model"]), str(line["digest"]), float(line["nats"]), int(line["tokens"]))
            for line in lines
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: cannot be read; remove it, and 'tunebench judge' measures again") from error


def write(folder: Path, surprises: Iterable[Surprise]) -> Path:
    """Keep them beside the tables; returns the file."""
    path = find(folder) / FILE
    write_atomically(path, "".join(f"{json.dumps(asdict(one))}\n" for one in surprises))
    return path


def add(tables: Stored, folder: Path) -> None:
    """Put what was measured, if anything was, beside the tables of ``folder``."""
    if known := read(folder):
        tables.put(TABLE, pd.DataFrame(known))


def unmeasured(tables: Tables, known: Iterable[Surprise]) -> dict[str, list[tuple[str, str]]]:
    """Of each model, the prompts with free answers of its trials that are not ``known``, each once."""
    seen = {(one.model, one.digest) for one in known}
    trials = tables["trials"]
    free = trials[(trials.status == "ok") & trials.task_kind.isin(FREE)]
    found: dict[str, list[tuple[str, str]]] = {}
    for model, rows in free.groupby("model", sort=False):
        for prompt, answer in _answers(list(rows.trial_id), tables):
            key = (str(model), digest(prompt, answer))
            if key not in seen:
                seen.add(key)
                found.setdefault(str(model), []).append((prompt, answer))
    return found


def perplexity(trial_ids: Iterable[str], tables: Tables) -> float | None:
    """exp(nats per token) of all stored answers of some trials of one model; None where one was not measured."""
    stored = tables.get(TABLE)
    ids = list(trial_ids)
    if stored is None:
        return None
    trials = tables["trials"]
    models = set(trials[trials.trial_id.isin(ids)].model)
    of_model = stored[stored.model.isin(models)]
    known: Mapping[str, tuple[float, int]] = dict(
        zip(of_model.digest, zip(of_model.nats, of_model.tokens, strict=True), strict=True)
    )
    found = [known.get(digest(prompt, answer)) for prompt, answer in _answers(ids, tables)]
    if not found or None in found:
        return None
    nats, tokens = (sum(one[at] for one in found if one is not None) for at in (0, 1))
    return math.exp(nats / tokens) if tokens else None


def _answers(trial_ids: list[str], tables: Tables) -> Iterator[tuple[str, str]]:
    if "generations" not in tables:
        return
    rows: Any = where(tables, "generations", trial_ids).itertuples()
    for row in rows:
        yield str(row.prompt), str(row.output)
