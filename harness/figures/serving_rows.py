"""Rows of the serving study, ready for a figure: one per strategy and setting, whatever trials they come from."""

from __future__ import annotations

import pandas as pd

from harness.figures.panels import Tables

SERVING = "serving"
_SETTING = ["model", "strategy", "tenants", "batch_size", "popularity"]
_MEASURED = ["p50_s", "p95_s", "tokens_per_s", "memory_bytes"]
NO_STUDY = "no serving study is among these tables"


def served(tables: Tables, phase: str) -> pd.DataFrame:
    """The rows of one phase; several trials of one setting give their median. Empty without a study.

    All strategies of a trial run in turn, so the machine's other work falls on all of them: disturbed rows stay, and
    ``disturbed`` says so.
    """
    table = tables.get(SERVING)
    if table is None or table.empty:
        return pd.DataFrame(columns=[*_SETTING, "requests", *_MEASURED, "disturbed"])
    rows = table[(table.phase == phase) & (table.p50_s.notna() | table.memory_bytes.notna())]
    rows = rows.assign(disturbed=rows.disturbed.astype("boolean").fillna(False).astype(bool))
    how = {**dict.fromkeys(_MEASURED, "median"), "disturbed": "any"}
    frame = rows.groupby(_SETTING, sort=False, as_index=False).agg(how).rename(columns={"batch_size": "requests"})
    return frame.assign(method=[_LIKE.get(name, name) for name in frame.strategy])


#: Strategy -> the method whose look it has; the name of any other decides its own.
_LIKE = {
    "base alone": "baseline",
    "copies": "full",
    "batched LoRA": "lora",
    "batched LoRA, NF4 base": "qlora",
    "batched adapters": "adapter",
    "batched prefixes": "prefix",
    "batched prompts": "prompt",
    "batched BitDelta": "bitdelta",
}


def rate_text(value: float) -> str:
    """Tokens per second as figures write them."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def disturbed_note(frame: pd.DataFrame) -> str:
    """What a panel adds to its description where other work took part."""
    return "others used the machine, strategies in turn" if frame.disturbed.any() else ""


def tenants_text(count: float) -> str:
    """A number of tenants in words."""
    return "1 tenant" if count == 1 else f"{count:g} tenants"
