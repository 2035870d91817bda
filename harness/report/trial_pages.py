"""The executed notebooks behind the rows of a report, each as a page beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from harness.files import NOTEBOOK_FILE, TABLES_DIR, TRIALS_DIR, write_atomically
from harness.judgement.statistics import aggregate
from harness.results.files import Tables

#: The folder of the pages, beside the report.
PAGES = "trials"

#: A larger notebook is no page to read, and more pages than these take minutes.
_LARGE_BYTES = 5_000_000
_MOST = 120


def write_pages(tables: Tables, sweep_dir: str | Path, out_dir: str | Path) -> int:
    """Write a page for the first seed of each row of the comparison whose notebook is there; how many there are.

    A page has its code in sight, loads nothing and runs nothing: what a notebook printed is text of others.
    """
    from harness.report.page import render_trial

    # The tables of a sweep lie beside its trials.
    folder = Path(sweep_dir).parent if Path(sweep_dir).name == TABLES_DIR else Path(sweep_dir)
    written = 0
    for trial_id, title in _shown(tables):
        notebook = folder / TRIALS_DIR / trial_id / NOTEBOOK_FILE
        page = Path(out_dir) / PAGES / f"{trial_id}.html"
        if written < _MOST and notebook.is_file() and notebook.stat().st_size <= _LARGE_BYTES:
            html = render_trial(notebook, title)
            if html is not None:
                page.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(page, html, durable=False)
                written += 1
                continue
        page.unlink(missing_ok=True)  # of an earlier report
    return written


def _shown(tables: Tables) -> Iterator[tuple[str, str]]:
    """(trial, what it is) of the first seed of each row."""
    trials = tables["trials"].set_index("trial_id")
    chosen = aggregate(tables)
    for ids, method, task, model in zip(chosen.trial_ids, chosen.method, chosen.task, chosen.model, strict=True):
        seeds = pd.Series({one: trials.seed[one] for one in ids})
        yield str(seeds.idxmin()), f"{method} on {task}, {model}, seed {seeds.min()}"
