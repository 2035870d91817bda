"""The estimate against a real step: activations and peak, for methods x batch x length on the embedded models.

    python benchmarks/estimate.py [--models smollm2-135m minilm-l6-22m] [--methods full lora …] [--batches 1 16] …
    python benchmarks/estimate.py --out docs/estimate.md

Each row runs two training steps in a process of its own, so that the peak is its own; it prints a line of a Markdown
table when it ends. Aims: activations within 3 %, the total within 15 % of the peak on CPU, and within 7 % of the
allocated peak on CUDA. A row that does not fit in the memory that is free now is told and not run.

How the two are compared on CPU. The estimate counts tensors. The peak is the resident memory of a process, which also
holds the interpreter and its libraries: about half a gigabyte that no setting changes. So the same process first takes
a step with the same method on a network of a few thousand parameters, which loads and starts all libraries. The table
adds the memory that it holds then to the estimate, and shows it as *held*. The measurement leaves out two more things
that are not tensors: the pages of the mapped checkpoint (weights are copied to memory of their own), and blocks that
glibc keeps after they are freed (it is told to return blocks above 128 kB at once).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness import catalog
from harness.errors import InputError
from harness.estimate.estimate import Estimate, estimate

LABELS = ("0", "1")

#: Share by which the estimate may be off: of the activations, and of the peak by device.
ACTIVATIONS = 0.03
PEAK = {"cpu": 0.15, "cuda": 0.07}

#: Room for the libraries, which the estimate leaves out.
LIBRARIES = 10**9

#: glibc gives freed blocks back at once. By default it keeps up to 32 MB blocks, in pieces that fit nothing: a few
#: hundred megabytes that no tensor holds.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "131072"}


def step(model: str, method: str, batch: int, length: int, dtype: str, device: str) -> tuple[int, int]:
    """Two real training steps: bytes kept for backward in the first, and the peak of the second."""
    import torch

    from harness import methods
    from harness.measure.memory import peak_memory, saved_activations
    from harness.models.load import load
    from harness.models.spec import load_spec

    base = load(model, labels=LABELS if load_spec(model).kind == "encoder" else None, dtype=dtype, device=device)
    ids = torch.randint(10, 250, (batch, length), generator=torch.Generator().manual_seed(0)).to(base.device)
    labels = torch.zeros(batch, dtype=torch.long, device=base.device) if base.has_head else ids
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    tuned = methods.apply(method, base)
    # Weights are views of the mapped checkpoint, whose pages all count as this process's: give them their own memory.
    for parameter in tuned.model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.clone()
    optimizer = torch.optim.AdamW(tuned.trainable.values(), weight_decay=0.0, fused=True)
    tuned.model.train()

    def update(loss: torch.Tensor) -> None:
        loss.backward()
        del loss
        torch.nn.utils.clip_grad_norm_(tuned.trainable.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    # The first step counts what is kept and makes the optimiser's states; the second is what every further one is like.
    with saved_activations(tuned.model) as saved:
        loss = tuned.model(**inputs).loss
    activations = saved.bytes
    del saved
    update(loss)
    del loss
    with peak_memory(base.device) as peak:
        update(tuned.model(**inputs).loss)
    assert peak.bytes is not None  # noqa: S101 - the block has ended
    return activations, peak.bytes


def measure(model: str, method: str, batch: int, length: int, dtype: str, device: str) -> dict[str, int]:
    """A row, in this process."""
    import gc

    from harness.measure.memory import process_peak_bytes, reset_process_peak
    from harness.models.spec import load_spec

    held = 0
    if device == "cpu":
        step("tiny-bert" if load_spec(model).kind == "encoder" else "tiny-llama", method, 2, 16, dtype, device)
        gc.collect()
        reset_process_peak()
        held = process_peak_bytes()
    activations, peak = step(model, method, batch, length, dtype, device)
    return {"activations_bytes": activations, "peak_bytes": peak, "held_bytes": held}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    model: str
    method: str
    batch: int
    length: int
    found: Estimate
    activations_bytes: int
    peak_bytes: int
    held_bytes: int
    """What the process held before: its libraries; 0 on CUDA, whose peak is of tensors alone."""
    tolerance: float

    @property
    def activations_off(self) -> float:
        return self.found.activations_bytes / self.activations_bytes - 1 if self.activations_bytes else 0.0

    @property
    def peak_off(self) -> float:
        return (self.held_bytes + self.found.total_bytes) / self.peak_bytes - 1

    @property
    def well(self) -> bool:
        return abs(self.activations_off) <= ACTIVATIONS and abs(self.peak_off) <= self.tolerance

    def __str__(self) -> str:
        cells = (
            self.model,
            self.method,
            self.batch,
            self.length,
            f"{self.found.activations_bytes / 1e6:,.1f}",
            f"{self.activations_bytes / 1e6:,.1f}",
            f"{self.activations_off:+.2%}",
            f"{self.found.total_bytes / 1e6:,.0f}",
            f"{self.held_bytes / 1e6:,.0f}",
            f"{self.peak_bytes / 1e6:,.0f}",
            f"{self.peak_off:+.1%}" + ("" if self.well else " **missed**"),
        )
        return line(*cells)


@dataclass(frozen=True)
class Remark:
    """A line that says why there are no numbers."""

    model: str
    method: str
    batch: int | str
    length: int | str
    why: str
    well: bool = True

    def __str__(self) -> str:
        return line(self.model, self.method, self.batch, self.length, self.why, *[""] * 6)


def line(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


HEADER = (
    line(
        "model",
        "method",
        "batch",
        "length",
        *("activations, MB", "measured", ""),
        *("tensors, MB", "+ held", "peak", ""),
    )
    + "\n"
    + line("---", "---", *["---:"] * 9)
)


def run(model: str, method: str, batch: int, length: int, dtype: str, device: str) -> Row | Remark:
    """A row from a process of its own, or why there is none."""
    found = estimate(model, method, batch_size=batch, length=length, dtype=dtype, optimizer_dtype=None)
    free = psutil.virtual_memory().available
    if device == "cpu" and found.total_bytes + LIBRARIES > free:
        why = f"not run: needs {found.total_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        return Remark(model, method, batch, length, why)
    command = [sys.executable, __file__, "--one", json.dumps([model, method, batch, length, dtype, device])]
    child = subprocess.run(command, capture_output=True, text=True, env=os.environ | ALLOCATOR)
    if child.returncode:
        why = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
        return Remark(model, method, batch, length, f"**failed**: {why}", well=False)
    return Row(model, method, batch, length, found, **json.loads(child.stdout.splitlines()[-1]), tolerance=PEAK[device])


def rows(given: argparse.Namespace) -> Iterator[Row | Remark]:
    """Small steps first: whatever stops this, most of the table is there."""
    refused: set[Remark] = set()
    for batch, length in sorted(itertools.product(given.batches, given.lengths), key=math.prod):
        for model, method in itertools.product(given.models, given.methods):
            try:
                yield run(model, method, batch, length, given.dtype, given.device)
            except InputError as error:
                if (remark := Remark(model, method, "", "", str(error))) not in refused:
                    refused.add(remark)
                    yield remark


def main() -> None:
    """Print the table; exit code 1 when a row misses an aim or fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["smollm2-135m", "minilm-l6-22m"])
    parser.add_argument("--methods", nargs="+", default=[n for n, e in catalog.METHODS.items() if e.trains])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--lengths", nargs="+", type=int, default=[64, 512])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", choices=list(PEAK), default="cpu")
    parser.add_argument("--out", type=Path, help="write the table there too, with how it was made")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(*json.loads(given.one))))
        return
    print(HEADER, flush=True)
    done: list[Row | Remark] = []
    for row in rows(given):
        done.append(row)
        print(row, flush=True)
        if given.out:
            given.out.write_text(
                document(done, given, "Not complete: it was stopped, or still runs."), encoding="utf-8"
            )
    if given.out:
        given.out.write_text(document(done, given), encoding="utf-8")
    print(summary(done, given.device))
    sys.exit(0 if all(row.well for row in done) else 1)


def summary(done: list[Row | Remark], device: str) -> str:
    """The largest differences."""
    measured = [row for row in done if isinstance(row, Row)]
    return (
        f"Largest difference of {len(measured)} rows: "
        f"activations {max((abs(row.activations_off) for row in measured), default=0):.2%} (aim: {ACTIVATIONS:.0%}), "
        f"peak {max((abs(row.peak_off) for row in measured), default=0):.1%} (aim: {PEAK[device]:.0%}). "
        f"Rows that miss an aim or fail: {sum(not row.well for row in done)}."
    )


def document(done: list[Row | Remark], given: argparse.Namespace, state: str = "") -> str:
    """The table as a page that says how it was made."""
    places = list(itertools.product(given.models, given.methods))
    ordered = sorted(done, key=lambda row: places.index((row.model, row.method)))
    command = " ".join(["python", "benchmarks/estimate.py", *sys.argv[1:]])
    what = (__doc__ or "").split("\n\n")[-1].strip()
    table = "\n".join([HEADER, *map(str, ordered), "", summary(done, given.device), state]).strip()
    return (
        "# The estimate against real training steps\n\n"
        f"Made by `{command}`; do not edit by hand.\n\n"
        "Activations are the tensors that the forward pass keeps for the backward pass, as autograd saves them.\n"
        "*Tensors* is the estimated peak of a step, *held* the memory that the process held before, and *peak* the\n"
        f"measured peak. A percentage says how far the estimate lies from the measurement.\n\n{what}\n\n{table}\n"
    )


if __name__ == "__main__":
    main()
