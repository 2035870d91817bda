"""Show what a sweep would run."""

from __future__ import annotations

import typer

from harness.cli.app import ForceOption, JsonOption, MemoryOption, OnlyOption, SetOption, SweepArgument, parse_only
from harness.cli.output import print_json, print_table, say


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(plan)


def plan(
    sweep: SweepArgument,
    set_: SetOption = None,
    only: OnlyOption = None,
    memory: MemoryOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show which trials would run, with their estimated memory and time, and which are skipped and why.

    Times follow from this machine's speed, measured once, and from earlier rows on it in tables below results/.
    """
    from pathlib import Path

    from harness.cli.estimating import Estimating
    from harness.estimate import planned, time
    from harness.sweeps import expand as matrix
    from harness.sweeps import fairness
    from harness.sweeps import spec as sweeps
    from harness.tasks import check

    limit = planned.limits(memory, force=force)
    sweep_plan = matrix.plan(sweeps.load(sweep, set_ or ()))
    if wanted := parse_only(only):
        sweep_plan = sweep_plan.only(wanted)
    data = check.tasks(row.trial for row in sweep_plan.runnable)
    taken_for = check.taken_for(row.trial for row in sweep_plan.rows)
    with Estimating() as watch:
        sweep_plan = planned.judge(sweep_plan, limit, watch=watch)
    sweep_plan = time.judge(sweep_plan, time.rows_of(Path("results")))
    not_here = check.not_here(row.trial for row in sweep_plan.runnable if row.estimated_s is None)
    if as_json:
        notices = {name: [str(one) for one in said] for name, said in data.items()}
        seconds, unknown = time.total_s(sweep_plan)
        total = {"estimated_s": seconds, "trials_without_time": unknown}
        said = {"remarks": [*fairness.remarks(sweep_plan)], "data": notices, "taken_for": taken_for}
        print_json({**sweep_plan.document(), **total, "not_here": not_here, **said})
    else:
        from harness.cli import console_tables

        lines = console_tables.plan(sweep_plan)
        print_table(lines.header, lines.rows)
        for line in console_tables.time_of(*time.total_s(sweep_plan)):
            print(line)
        out = sum(count for _, count in sweep_plan.excluded)
        print(
            f"{len(sweep_plan.runnable)} to run, {len(sweep_plan.skipped)} skipped, {out} excluded, "
            f"{sweep_plan.duplicates} duplicates merged"
        )
        if not_here:
            say(f"no time for {', '.join(not_here)}, whose data is not here yet: `tunebench fetch {sweep}` brings it")
        for name, what in taken_for.items():
            say(f"task '{name}': its data was taken for {what}")
        for line in (*fairness.remarks(sweep_plan), *check.lines(data)):
            say(line)
