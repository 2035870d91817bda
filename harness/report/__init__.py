"""The report: one self-contained HTML page, from ``notebooks/report.ipynb`` executed on a folder of tables."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from harness import notebooks
from harness.errors import InputError, cut
from harness.processes.guarded import Guarded
from harness.results import tables
from harness.results.schema import TABLES

PAGE = "index.html"
NOTEBOOK = "report"

#: Larger tables are not copied, so that the report stays small enough to send.
_LARGE_BYTES = 100_000_000


def build(sweep_dir: Path, out_dir: Path) -> Path:
    """Write ``out_dir/index.html``, its figures (PNG, SVG) and a copy of the tables (CSV, up to 100 MB each).

    Where the trials are beside the tables, the executed notebook behind each row becomes a page of its own.

    ``sweep_dir`` is the folder of a sweep or its ``tables/``. The page contains everything and loads nothing from the
    network.
    Raises :class:`InputError` when there are no tables or damaged ones, or when ``out_dir`` cannot be written.
    """
    from harness.report.page import render

    tables_dir = tables.find(Path(sweep_dir)).resolve()
    tables.read(tables_dir)  # raises before anything is written
    out = Path(out_dir).resolve()
    try:
        (out / "tables").mkdir(parents=True, exist_ok=True)
        _copy(tables_dir, out / "tables")
    except OSError as error:
        raise InputError(f"{out_dir}: cannot write the report here: {error.strerror}") from error
    executed = _executed(tables_dir, out, sweep_dir)
    page = out / PAGE
    part = page.with_name(f".{PAGE}.part")
    part.write_text(render(executed), encoding="utf-8")
    part.replace(page)
    return page


def _executed(tables_dir: Path, out: Path, sweep_dir: Path) -> Any:
    """The report's notebook, executed on these tables; ``sweep_dir`` is what the user calls them."""
    # Imported here, because a sweep without a report does not need papermill and nbconvert.
    import papermill
    from papermill.exceptions import PapermillExecutionError

    from harness.processes.kernels import guarded_kernel

    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        kernel = guarded_kernel(Guarded.waiting(nowhere), "ipykernel_launcher", {})
    folder = kernel.guarded.folder
    try:
        return papermill.execute_notebook(
            notebooks.path(NOTEBOOK),
            folder / "report.ipynb",
            parameters={"sweep_dir": str(tables_dir), "out_dir": str(out)},
            kernel_name="python3",
            language="python",
            progress_bar=False,
            cwd=str(folder),
            km=kernel,
        )
    except PapermillExecutionError as error:
        what = "" if error.ename == "InputError" else f"{error.ename}: "
        raise InputError(
            f"{sweep_dir}: no report can be made of these tables: {what}{cut(error.evalue)}; "
            f"make them again with 'tunebench tables', or see notebooks/{NOTEBOOK}.ipynb if it is your own"
        ) from error
    finally:
        kernel.end()


def _copy(tables_dir: Path, out: Path) -> None:
    """Copy every table of at most :data:`_LARGE_BYTES` to the folder of the page."""
    if tables_dir == out:
        return
    for name in TABLES:
        csv = tables_dir / f"{name}.csv"
        if csv.is_file() and csv.stat().st_size <= _LARGE_BYTES:
            shutil.copyfile(csv, out / csv.name)
        else:
            (out / csv.name).unlink(missing_ok=True)  # a copy that an earlier report left
