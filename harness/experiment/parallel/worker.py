"""One of the processes that train together: ``python -m harness.experiment.parallel.worker FOLDER``.

``RANK``, ``LOCAL_RANK`` and ``WORLD_SIZE`` in the environment identify it.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed
from torch.distributed.tensor import DTensor

from harness import methods, objectives
from harness.experiment.parallel.launch import (
    ERROR_FILE,
    HISTORY_FILE,
    ORDER_FILE,
    START_DIR,
    TRAINED_FILE,
    history_document,
)
from harness.files import write_atomically
from harness.models import load as models
from harness.tasks import data as tasks
from harness.training.trainer import History, Settings
from harness.trial import Budget

STORE_FILE = "store"


def main(folder: Path) -> None:
    """Train as ``folder`` orders; the first process writes the results there."""
    try:
        _train(folder)
    except Exception as error:
        _tell(folder, error)
        raise


def _tell(folder: Path, error: Exception) -> None:
    """Report the error, unless another process has: later failures follow from the first."""
    first_line = (str(error).splitlines() or [""])[0]
    own = folder / f"error-{os.environ['RANK']}.json"
    write_atomically(own, json.dumps({"name": type(error).__name__, "message": first_line}))
    with suppress(FileExistsError):
        (folder / ERROR_FILE).hardlink_to(own)


def _meet(folder: Path, device: str) -> None:
    """Form the group of the processes that train together, for accelerate to use.

    They meet through a file in ``folder``, which is private; this opens no port.
    """
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(device)
    store = distributed.FileStore(str(folder / STORE_FILE), size)
    distributed.init_process_group("nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=size)


def _train(folder: Path) -> None:
    order = json.loads((folder / ORDER_FILE).read_text(encoding="utf-8"))
    first = os.environ["RANK"] == "0"
    budget = Budget(**order["budget"])
    device = f"cuda:{os.environ['LOCAL_RANK']}" if order["device"] == "cuda" else order["device"]
    _meet(folder, device)
    base = models.load(
        order["model"],
        labels=tuple(order["labels"]) if order["labels"] else None,
        scalar=order["scalar"],
        dtype=order["dtype"],
        device=device,
        seed=order["seed"],
    )
    tuned = methods.load(base, folder / START_DIR)
    data = tasks.load(order["task"], budget, order["seed"])
    settings = Settings(budget, order["learning_rate"], order["seed"], on_step=_say if first else None)
    history = objectives.fit(order["objective"], tuned, data, settings, **order["args"])
    history = _of_all(history, base.device)
    trained = {name: _whole(parameter) for name, parameter in tuned.trainable.items()}
    if first:
        save_file(trained, folder / TRAINED_FILE)
        write_atomically(folder / HISTORY_FILE, history_document(history))
    distributed.destroy_process_group()


def _say(step: int, steps: int, loss: float | None) -> None:
    print(json.dumps({"step": step, "steps": steps, "loss": loss}))


def _whole(parameter: torch.Tensor) -> torch.Tensor:
    """The whole of a sharded parameter; every process has to call this."""
    return (parameter.full_tensor() if isinstance(parameter, DTensor) else parameter).detach().cpu().contiguous()


def _of_all(history: History, device: torch.device) -> History:
    """The history of all processes: the sums of tokens, places and FLOPs, and the largest peak."""
    counts = torch.tensor(
        [[step.tokens for step in history.steps], [step.slots or 0 for step in history.steps]], device=device
    )
    flops = torch.tensor(history.first_step_flops or 0, device=device)
    peak = torch.tensor(history.peak_train_bytes or 0, device=device)
    distributed.all_reduce(counts)
    distributed.all_reduce(flops)
    distributed.all_reduce(peak, distributed.ReduceOp.MAX)
    tokens, slots = counts.tolist()
    steps = zip(history.steps, tokens, slots, strict=True)
    return replace(
        history,
        steps=tuple(replace(step, tokens=count, slots=places or None) for step, count, places in steps),
        first_step_flops=int(flops) or None,
        peak_train_bytes=int(peak) or None,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
