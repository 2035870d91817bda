"""The command line. Every command imports what it needs when it runs, so that ``--help`` is immediate."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from harness import __version__
from harness.errors import InputError, unknown

BAD_INPUT = 2
INTERRUPTED = 130

app = typer.Typer(
    help="Which fine-tuning method for my model, my task and my hardware?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

SweepArgument = Annotated[str, typer.Argument(metavar="SWEEP", help="a sweep's YAML file, or a name under sweeps/")]
FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="the folder of a sweep, such as results/quick")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="change the sweep: dotted key, YAML value; may be repeated"),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option(metavar="EXPR", help="a part of the sweep, such as 'method=lora|full,seed=0'; may be repeated"),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="the memory that trials have, such as 24GB; default: their device's here"),
]
ForceOption = Annotated[bool, typer.Option("--force", help="skip nothing for its estimated memory")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]


def main() -> None:
    """Run the command line: exit code 2 and one line for bad input, 130 when interrupted."""
    try:
        app()
    except InputError as error:
        _fail(str(error))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename or 'tunebench'}: {error.strerror or error}")


@contextmanager
def _stoppable() -> Iterator[None]:
    """End with exit code 130, and say that nothing is lost, when the user interrupts."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted: what has ended is kept; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def _fail(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(BAD_INPUT)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False,
) -> None:
    if version:
        print(f"tunebench {__version__}")
        raise typer.Exit


@app.command()
def run(
    sweep: SweepArgument,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="default: results/<name of the sweep>")] = None,
    executor: Annotated[str, typer.Option(help="where trials run")] = "local",
    jobs: Annotated[int, typer.Option(min=1, help="trials at a time; more than one disturbs time and speed")] = 1,
    set_: SetOption = None,
    only: OnlyOption = None,
    retry: Annotated[bool, typer.Option("--retry", help="run again what did not end well")] = False,
    memory: MemoryOption = None,
    force: ForceOption = False,
    log_json: Annotated[bool, typer.Option("--log-json", help="one JSON event a line")] = False,
    cold: Annotated[
        bool, typer.Option("--cold", help="each trial imports its libraries itself: seconds slower, the same results")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="write the report there when all trials have ended")
    ] = None,
) -> None:
    """Run the trials of a sweep that have not run yet."""
    from functools import partial

    from harness import sweep as sweeps
    from harness.estimate import planned
    from harness.runner.run import run as run_sweep

    loaded = sweeps.load(sweep, set_ or ())
    folder = out or Path("results") / loaded.name
    # How much memory the machines of a cluster have is not to be seen from here.
    limit = planned.limits(memory, force=force, elsewhere=executor != "local")
    with _stoppable():
        finished = run_sweep(
            loaded,
            folder,
            executor=executor,
            jobs=jobs,
            only=_only(only),
            retry=retry,
            log_json=log_json,
            cold=cold,
            judge=partial(planned.judge, limit=limit),
        )
    if finished.ran or not (folder / "tables" / "trials.parquet").exists():
        from harness.results import tables

        tables.write(folder)
    if log_json:
        counts = Counter(record.status for record in finished.records)
        print(json.dumps({"event": "done", "ran": finished.ran, "trials": counts}), flush=True)
    elif not finished.ran:
        print(f"nothing to do: {len(finished.records)} trials done in {folder}")
    else:
        from harness import shown

        lines = shown.outcome(folder, finished.records)
        _print_table(lines.header, lines.rows)
        for line in shown.reasons(finished.records):
            print(line)
    if report is not None:
        _report(folder, report)
    if not finished.all_well:
        raise typer.Exit(1)


@app.command()
def plan(
    sweep: SweepArgument,
    set_: SetOption = None,
    only: OnlyOption = None,
    memory: MemoryOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what would run with its estimated memory, and what is skipped and why."""
    from dataclasses import replace

    from harness import matrix
    from harness import sweep as sweeps
    from harness.estimate import planned

    limit = planned.limits(memory, force=force)
    made = matrix.plan(sweeps.load(sweep, set_ or ()))
    if wanted := _only(only):
        ids = made.matching(wanted)
        made = replace(made, rows=tuple(row for row in made.rows if row.trial_id in ids))
    made = planned.judge(made, limit)
    if as_json:
        _print_json(made.document())
    else:
        from harness import shown

        lines = shown.plan(made)
        _print_table(lines.header, lines.rows)
        out = sum(count for _, count in made.excluded)
        print(
            f"{len(made.runnable)} to run, {len(made.skipped)} skipped, {out} excluded, "
            f"{made.duplicates} duplicates merged"
        )


@app.command()
def status(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Count the trials of a sweep by how they ended."""
    from harness.results.ledger import Ledger

    counts = Ledger.open(folder).status()
    if as_json:
        _print_json(dict(counts))
    else:
        _print_table(("status", "trials"), counts.items())


@app.command()
def tables(folder: FolderArgument) -> None:
    """Make the tables of a sweep again from its records."""
    from harness.results import tables as made

    for name, rows in made.write(folder).items():
        print(f"{folder / 'tables' / name}.parquet: {rows} rows")


@app.command()
def report(
    folder: FolderArgument,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="default: reports/<name of DIR>")] = None,
) -> None:
    """Make the report of a sweep: one HTML page."""
    _report(folder, out or Path("reports") / folder.resolve().name)


@app.command()
def estimate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="a name, or the path of a config.json or its folder")],
    method: Annotated[str, typer.Option(metavar="M", help="a method, or 'all' for a table of what fits")] = "full",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="an argument of the method, such as r=64; may be repeated"),
    ] = None,
    batch: Annotated[int, typer.Option(metavar="B", help="examples per step")] = 1,
    length: Annotated[int, typer.Option(metavar="L", help="tokens per example")] = 512,
    dtype: Annotated[str, typer.Option(help="number format of the weights")] = "bfloat16",
    optimizer_dtype: Annotated[str, typer.Option(help="number format of AdamW's two states")] = "float32",
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="keep only what enters each layer, compute the rest again")
    ] = False,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="does it fit in this, such as 24GB")] = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate a training step's memory and FLOPs from a model's shape; nothing is fetched or run."""
    from harness.estimate.fits import parse_bytes

    limit = None if memory is None else parse_bytes(memory, "--memory")
    from harness.estimate.start import quick_start

    with quick_start():
        from harness.estimate import show

        found = show.answer(
            model,
            method,
            set_ or (),
            limit,
            batch_size=batch,
            length=length,
            dtype=dtype,
            optimizer_dtype=optimizer_dtype,
            gradient_checkpointing=gradient_checkpointing,
        )
    if as_json:
        _print_json(found.document)
    else:
        _print_table(found.header, found.rows)
        for line in found.remarks:
            print(line)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="methods, objectives, models, tasks or sweeps")],
    as_json: JsonOption = False,
) -> None:
    """List the names that a sweep can use."""
    from harness import listing

    if what not in listing.LISTINGS:
        raise unknown("list", what, listing.LISTINGS)
    rows = listing.LISTINGS[what]()
    if as_json:
        _print_json(rows)
    elif rows:
        _print_table(tuple(rows[0]), (row.values() for row in rows))


@app.command()
def fetch(sweep: SweepArgument, set_: SetOption = None) -> None:
    """Bring the models and data of a sweep into the cache, for machines without a network."""
    from harness import axes
    from harness import fetch as fetching
    from harness import sweep as sweeps
    from harness.models.checkpoint import checkpoint_dir
    from harness.models.spec import load_spec as load_model
    from harness.tasks.spec import load_spec as load_task

    found = axes.load(sweeps.load(sweep, set_ or ()))
    for model in (load_model(entry.spec.address) for entry in found.models):
        print(f"{model.name}: {'random weights' if model.is_random else checkpoint_dir(model)}", flush=True)
    for task in (load_task(entry.spec.address) for entry in found.tasks):
        print(f"{task.name}: {fetching.resolve(task.source)}", flush=True)


@app.command()
def lab(
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="default: the notebooks of TuneBench")] = None,
) -> None:
    """Open JupyterLab on this machine only, behind a token."""
    import os

    from harness import notebooks

    where = folder or notebooks.root()
    if not where.is_dir():
        raise InputError(f"{where}: no such folder")
    command = [sys.executable, "-m", "jupyterlab", "--ip", "127.0.0.1", "--ServerApp.root_dir", str(where.resolve())]
    # Nothing is asked of the network.
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # the usual user of a container; Jupyter would refuse
    os.execv(sys.executable, command)  # noqa: S606


@app.command()
def trial(
    folder: Annotated[Path, typer.Argument(metavar="TRIAL_DIR", help="results/<sweep>/trials/<trial_id>")],
) -> None:
    """Run one trial here."""
    import os

    from harness.runner.processes import DRIVER_VARIABLE
    from harness.runner.trial import run_trial

    driven = DRIVER_VARIABLE in os.environ  # asked now, because run_trial takes it out of there
    with _stoppable():
        record = run_trial(folder)
    if record is None:
        print(f"{folder.name}: nothing to do: it is done, or somebody else works on it")
        return
    print(f"{record.trial_id}: {record.status}" + (f": {record.reason}" if record.reason else ""))
    # A driver reads records: to it, any other code than 0 says that the process left none.
    if record.status != "ok" and not driven:
        raise typer.Exit(1)


def _only(texts: Sequence[str] | None) -> dict[str, Sequence[Any]]:
    """``method=lora|full,seed=0``, once or more often, as name -> wanted values."""
    from harness import yamlfile

    wanted: dict[str, Sequence[Any]] = {}
    for text in texts or ():
        for part in text.split(","):
            name, separator, values = part.partition("=")
            if not separator or not (name := name.strip()):
                raise InputError(f"--only {text}: write KEY=VALUE,KEY=VALUE; '|' between values that will do")
            if name in wanted:
                raise InputError(f"--only {text}: '{name}' is given twice; write {name}=A|B for either")
            wanted[name] = [yamlfile.parse(value, f"--only {text}") for value in values.split("|")]
    return wanted


def _report(folder: Path, out: Path) -> None:
    from harness.report import build

    print(build(folder, out))


def _print_table(header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Columns that fit a terminal, and unwrapped ones, quick to make, where the output goes elsewhere."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
        for row in (header, *cells):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in cells:
        table.add_row(*row)
    Console().print(table)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
