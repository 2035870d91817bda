"""Fill the cache before a sweep runs."""

from __future__ import annotations

import typer

from harness.cli.app import SetOption, SweepArgument
from harness.cli.output import say


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(fetch)


def fetch(sweep: SweepArgument, set_: SetOption = None) -> None:
    """Download the models and data of a sweep into the cache, for machines without a network.

    What is in the cache already is checked by its hashes, and a damaged file is downloaded anew.
    """
    from harness.models.checkpoint import checkpoint_dir
    from harness.models.spec import load_spec as load_model
    from harness.sources import fetch as fetching
    from harness.sweeps import axes
    from harness.sweeps import spec as sweeps
    from harness.tasks.metrics import METRICS
    from harness.tasks.spec import load_spec as load_task

    matrix = axes.load(sweeps.load(sweep, set_ or ()))
    for model in (load_model(entry.spec.address) for entry in matrix.models):
        say(f"{model.name}: {'random weights' if model.is_random else checkpoint_dir(model, verify=True)}")
    for task in (load_task(entry.spec.address) for entry in matrix.tasks):
        say(f"{task.name}: {fetching.resolve(task.source, verify=True)}")
        for metric in (METRICS[name] for name in task.metrics):
            if metric.source is not None:
                say(f"{metric.name}: {fetching.resolve(metric.source, verify=True)}")
