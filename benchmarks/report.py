"""What the report of a large sweep costs: its size, and the seconds of each of its sections.

    python benchmarks/report.py [DIR] [--methods 40] [--seeds 3] [--rates 3] [--out DIR]

Without DIR it makes up a sweep: 40 methods, 3 learning rates, 3 seeds, 2 models and 3 tasks are 2,142 trials. The aim
for 2,000 trials is a page below 15 MB, and no section that takes longer than a minute on one core.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from harness import report
from harness.ledger.records import read_records
from harness.report.page import render
from harness.results import tables

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

PAGE_BYTES = 15_000_000
SECTION_S = 60.0


def made_up(folder: Path, arguments: argparse.Namespace) -> Path:
    """A sweep in ``folder`` whose records are invented, and its tables."""
    from helpers.fake_records import make_sweep

    trials = make_sweep(
        folder,
        n_methods=arguments.methods,
        seeds=arguments.seeds,
        rates=arguments.rates,
        models=("smollm2-135m", "gemma3-270m"),
        tasks=("factual_summary", "news_summary", "question_class"),
    )
    start = time.perf_counter()
    tables.write(read_records(folder), folder)
    print(f"{len(trials):,} made-up trials, tables in {time.perf_counter() - start:.1f} s")
    return folder


def sections(notebook: Any) -> Iterator[tuple[str, str, float]]:
    """Heading, first line of code and seconds of every cell of an executed notebook."""
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = next((line.lstrip("# ") for line in cell.source.splitlines() if line.startswith("#")), heading)
        elif (seconds := cell.metadata.get("papermill", {}).get("duration")) is not None:
            yield heading, cell.source.splitlines()[-1], seconds


def measure(folder: Path, out: Path) -> bool:
    """Write the page, print what it cost, and return whether the aims are met."""
    (out / "tables").mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    executed = report._executed(tables.find(folder).resolve(), out.resolve(), folder)
    ran = time.perf_counter()
    page = render(executed)
    (out / report.PAGE).write_text(page, encoding="utf-8")
    shown = Table("section", "code", "seconds")
    costs = sorted(sections(executed), key=lambda one: -one[2])
    for heading, code, seconds in costs:
        shown.add_row(heading, code[:70], f"{seconds:.1f}")
    Console(width=140).print(shown)
    size = len(page.encode())
    print(f"page {size / 1e6:.1f} MB, notebook {ran - start:.0f} s, HTML {time.perf_counter() - ran:.0f} s: {out}")
    return size < PAGE_BYTES and costs[0][2] < SECTION_S


def main() -> int:
    """Measure a folder's report; 1 where an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="a folder with tables; default: a made-up sweep")
    parser.add_argument("--methods", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where the page is kept; default: nowhere")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = arguments.folder or made_up(Path(place) / "results", arguments)
        return 0 if measure(folder, arguments.out or Path(place) / "report") else 1


if __name__ == "__main__":
    sys.exit(main())
