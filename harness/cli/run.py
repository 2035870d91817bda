"""Run a sweep: every trial that has no record yet."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import (
    ForceOption,
    MemoryOption,
    OnlyOption,
    SetOption,
    SweepArgument,
    check_folder,
    named_path,
    parse_only,
    stoppable,
)
from harness.cli.output import print_table, say
from harness.cli.report import write_report

_NEXT = """\
results in {folder}
next:
  tunebench report {folder}   # one page with figures and comparisons
  tunebench lab {folder}      # the executed notebook of each trial: trials/<trial>/notebook.ipynb"""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(run)


def run(
    sweep: SweepArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=named_path, metavar="DIR", help="folder of the results; default: results/<name of the sweep>"
        ),
    ] = None,
    executor: Annotated[str, typer.Option(help="where trials run: local, ray or slurm")] = "local",
    jobs: Annotated[
        int, typer.Option(min=1, max=1000, help="trials that run at once; more than one distorts times and speeds")
    ] = 1,
    set_: SetOption = None,
    only: OnlyOption = None,
    retry: Annotated[bool, typer.Option("--retry", help="run trials again that did not end well")] = False,
    memory: MemoryOption = None,
    force: ForceOption = False,
    log_json: Annotated[bool, typer.Option("--log-json", help="print one JSON event per line")] = False,
    cold: Annotated[
        bool, typer.Option("--cold", help="let each trial import its libraries itself: slower by seconds, same results")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            parser=named_path, metavar="DIR", help="write the report to this folder when all trials have ended"
        ),
    ] = None,
) -> None:
    """Run the trials of a sweep that have no result yet."""
    from harness.cli.estimating import Estimating
    from harness.estimate import planned
    from harness.runner.run import run as run_sweep
    from harness.sweeps import spec as sweeps
    from harness.sweeps.plan import Plan
    from harness.tasks import check

    loaded = sweeps.load(sweep, set_ or ())
    folder = out or Path("results") / loaded.name
    if report is not None:
        check_folder(report, "--report")
    # The memory of a cluster's machines is not known on this one.
    limit = planned.limits(memory, force=force, elsewhere=executor != "local")

    told: set[str] = set()

    def judged(plan: Plan) -> Plan:
        """The plan, when its tasks can be read; what they leave out goes to the standard error stream."""
        trials = (row.trial for row in plan.runnable)
        for line in check.lines(check.tasks(trials, must_be_here=executor == "local")):
            if line not in told:  # by the plan before, of a sweep with a search
                say(line, sys.stderr)
            told.add(line)
        with Estimating() as watch:
            return planned.judge(plan, limit, watch=watch)

    with stoppable():
        finished = run_sweep(
            loaded,
            folder,
            executor=executor,
            jobs=jobs,
            only=parse_only(only),
            retry=retry,
            log_json=log_json,
            cold=cold,
            judge=judged,
        )
    if log_json:
        counts = Counter(record.status for record in finished.records)
        print(json.dumps({"event": "done", "ran": finished.ran, "trials": counts}), flush=True)
    elif not finished.ran and finished.tables.rows is not None:
        print(f"no trial to run; tables made again from {len(finished.tables.whole)} records in {folder}")
    elif not finished.ran:
        say(f"nothing to do: {len(finished.records)} trials done in {folder}")
    else:
        from harness.cli import console_tables

        lines = console_tables.outcome(folder, finished.records)
        print_table(lines.header, lines.rows)
        for line in console_tables.reasons(finished.records):
            say(line)
        for line in _NEXT.format(folder=shlex.quote(str(folder))).splitlines():
            say(line)
    if waiting := sum(one.trials for one in finished.ledger.plan.later):
        say(f"{waiting} more trials follow when the settings before them have been tried", sys.stderr)
    if report is not None:
        write_report(folder, report)
    if not finished.all_well:
        raise typer.Exit(1)
