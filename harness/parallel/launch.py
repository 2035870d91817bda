"""The notebook's side of training on several devices: start the processes, watch them, take back what they trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file

from harness.errors import InputError
from harness.measure.training import Step
from harness.methods.tuned import Tuned
from harness.objectives.training import Diverged, History, Point, Settings
from harness.parallel import VARIABLE

ORDER_FILE, START_DIR, TRAINED_FILE, HISTORY_FILE, ERROR_FILE = (
    "order.json",
    "start",
    "trained.safetensors",
    "history.json",
    "error.json",
)


def fit(
    objective: str, tuned: Tuned, task: str, settings: Settings, args: Mapping[str, Any], processes: int
) -> History:
    """:func:`harness.objectives.fit` in ``processes`` processes; ``tuned`` is trained in place all the same.

    Memory in the history is that of the process that needed most; gradients and states are one process's part.
    Raises :class:`InputError` when a batch cannot be shared, :class:`Diverged`, MemoryError, and RuntimeError with
    the first line of whatever else went wrong in a process.
    """
    if settings.budget.batch_size % processes:
        raise InputError(f"budget.batch_size: {settings.budget.batch_size} cannot be shared by {processes} processes")
    with TemporaryDirectory(prefix="tunebench-") as name:
        folder = Path(name)
        tuned.save(folder / START_DIR)
        base = tuned.base
        order = {
            "model": base.spec.name,
            "labels": base.labels,
            "scalar": base.scalar,
            "dtype": str(base.dtype).removeprefix("torch."),
            "device": base.device.type,
            "seed": settings.seed,
            "task": task,
            "objective": objective,
            "args": dict(args),
            "budget": settings.budget.model_dump(),
            "learning_rate": settings.learning_rate,
        }
        (folder / ORDER_FILE).write_text(json.dumps(order), encoding="utf-8")
        home = tuned.base.device
        tuned.model.to("cpu")  # makes room on the device that the first process takes
        try:
            _run(folder, processes, settings)
        finally:
            tuned.model.to(home)
        with torch.no_grad():
            found = load_file(folder / TRAINED_FILE)
            for parameter_name, parameter in tuned.trainable.items():
                parameter.copy_(found[parameter_name])
        tuned.model.eval()
        return history_from(json.loads((folder / HISTORY_FILE).read_text(encoding="utf-8")))


def history_document(history: History) -> str:
    """A history as JSON; :func:`history_from` reads it."""
    return json.dumps(asdict(history))


def history_from(document: dict[str, Any]) -> History:
    """The history that :func:`history_document` wrote."""
    steps = tuple(Step(**step) for step in document.pop("steps"))
    return History(steps=steps, curves=tuple(Point(**point) for point in document.pop("curves")), **document)


def _run(folder: Path, processes: int, settings: Settings) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    environment.pop(VARIABLE, None)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    with subprocess.Popen(
        [*command, "-m", "harness.parallel.worker", str(folder)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as launcher:
        for line in launcher.stdout or ():
            if settings.on_step is not None and line.startswith('{"step"'):
                said = json.loads(line)
                settings.on_step(said["step"], said["steps"], said["loss"])
    if launcher.returncode:
        raise _error(folder, launcher.returncode)


def _error(folder: Path, code: int) -> Exception:
    """What the first process that failed has said of it."""
    try:
        said = json.loads((folder / ERROR_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return RuntimeError(f"the training processes ended with exit code {code}")
    known = {"Diverged": Diverged, "OutOfMemoryError": MemoryError, "MemoryError": MemoryError}
    return known.get(said["name"], RuntimeError)(said["message"])
