"""The notebook's side of training on several devices: start the processes, watch them, take back the parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file

from harness.errors import InputError
from harness.experiment.parallel import workers
from harness.measure.training import Step
from harness.networks.tuned import Tuned
from harness.training.proof import Proof
from harness.training.trainer import Diverged, History, Point, Settings

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
    """:func:`harness.objectives.fit` in ``processes`` processes; it still trains ``tuned`` in place.

    Memory in the history is that of the process with the highest peak; gradients and states are one process's part.
    Raises :class:`InputError` if the processes cannot share a batch, :class:`Diverged`, MemoryError, and RuntimeError
    with the first line of any other error in a process.
    """
    if settings.budget.batch_size % processes:
        raise InputError(f"budget.batch_size: {settings.budget.batch_size} cannot be shared by {processes} processes")
    with TemporaryDirectory(prefix="tunebench-") as name:
        folder = Path(name)
        tuned.save(folder / START_DIR)
        base = tuned.base
        order = {
            "model": base.spec.address,
            "labels": base.labels,
            "scalar": base.scalar,
            "dtype": base.number_format,
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
            tensors = load_file(folder / TRAINED_FILE)
            for parameter_name, parameter in tuned.trainable.items():
                parameter.copy_(tensors[parameter_name])
        tuned.model.eval()
        return history_from(json.loads((folder / HISTORY_FILE).read_text(encoding="utf-8")))


def history_document(history: History) -> str:
    """A history as JSON; :func:`history_from` reads it."""
    return json.dumps(asdict(history))


def history_from(document: dict[str, Any]) -> History:
    """The history that :func:`history_document` wrote."""
    steps = tuple(Step(**step) for step in document.pop("steps"))
    if document.get("proof") is not None:
        document["proof"] = Proof(**document["proof"])
    return History(steps=steps, curves=tuple(Point(**point) for point in document.pop("curves")), **document)


def _run(folder: Path, processes: int, settings: Settings) -> None:
    def hear(line: str) -> None:
        if settings.on_step is not None and line.startswith('{"step"'):
            said = json.loads(line)
            settings.on_step(said["step"], said["steps"], said["loss"])

    try:
        workers.run(folder, processes, hear)
    except workers.WorkerFailure as failure:
        raise _error(folder, failure) from None


def _error(folder: Path, failure: workers.WorkerFailure) -> Exception:
    """The error that the first failed process reported; a killed process reports none."""
    try:
        said = json.loads((folder / ERROR_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return failure
    if failure.code < 0:  # then the others had nothing to tell but that it was gone
        return failure
    known = {"Diverged": Diverged, "OutOfMemoryError": MemoryError, "MemoryError": MemoryError}
    return known.get(said["name"], RuntimeError)(said["message"])
