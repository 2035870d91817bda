"""On a CUDA device: every method trains and reloads, and what is measured there is what the device did.

``python -m pytest -m gpu`` runs these; ``benchmarks/gpu.sh`` runs them and then the sweeps for a large card.
"""

from __future__ import annotations

import gc
import json
import math
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from helpers import command_line
from helpers import tiny_models as tiny

from harness import catalog, methods
from harness.estimate.estimate import estimate
from harness.experiment import Experiment
from harness.measure.energy import energy
from harness.measure.flops import FlopCounter
from harness.measure.latency import timed
from harness.measure.memory import peak_memory, saved_activations, weights_bytes
from harness.measure.roofline import measure_roofline
from harness.models import formats
from harness.models.load import Base, load

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

CUDA = torch.device("cuda:0")
TRAINED = [name for name, entry in catalog.METHODS.items() if entry.trains]
BUDGET = {"train_examples": 8, "batch_size": 4, "epochs": 1, "max_length": 64, "eval_examples": 2}
#: Large enough that what the allocator rounds up is little beside it.
MODEL = "llama-1b"
#: With tensors that 8-bit optimisers keep in 8 bits, and small enough for several tests at a time.
SMALL = "smollm2-135m@random"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A generation task in a file of its own, so that nothing has to be fetched."""
    folder = tmp_path_factory.mktemp("task")
    rows = [{"q": f"Which word follows {n}?", "a": f"word {n}"} for n in range(64)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    document: dict[str, Any] = {
        "name": "words",
        "kind": "generation",
        "source": {"local": "rows.jsonl"},
        "prompt": "{q}\n",
        "completion": "{a}",
        "splits": {"validation": 4, "test": 4},
        "max_new_tokens": 4,
    }
    path = folder / "words.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(path)


# The tests that take longest stand first: where several run at once, each begins on a worker of its own.


#: Cells without a model: allocates more than any card has, or a little.
ALLOCATE = """\
import torch
torch.empty(10**14 if act == 'oom' else 10**6, dtype=torch.uint8, device='cuda')"""
WRITE = """\
from harness.results.record import write_outcome
columns = {'valid_score': 0.5, 'primary_metric': 'accuracy', 'higher_is_better': True}
write_outcome(trial_dir, columns, {})"""


def test_a_trial_out_of_memory_is_a_row_and_the_next_one_runs(tmp_path: Path) -> None:
    tiny.bench(tmp_path, methods={"full": {"act": ["oom", "ok"]}})
    tiny.notebook(tmp_path / "notebooks" / "methods" / "full.ipynb", cells=(ALLOCATE, WRITE))
    tiny.tunebench(tmp_path, "run", "tiny.yaml").communicate()
    rows = pd.read_parquet(tmp_path / "results" / "tiny" / "tables" / "trials.parquet")
    assert sorted(rows["status"]) == ["ok", "oom"]


def test_a_peak_holds_what_was_allocated_and_freed_inside_it() -> None:
    before = torch.cuda.memory_allocated(CUDA)
    with peak_memory(CUDA) as peak:
        tensor = torch.empty(2**28, dtype=torch.uint8, device=CUDA)
        del tensor
    assert peak.bytes is not None and peak.bytes - before == 2**28


def test_a_time_ends_when_the_device_is_done() -> None:
    a = torch.randn(8192, 8192, dtype=torch.bfloat16, device=CUDA)
    took = timed(lambda: [a @ a for _ in range(10)], CUDA, repeats=3)
    # Queueing ten products takes microseconds. No card of today does 2e16 FLOPs a second.
    assert took.p50_s > 10 * 2 * 8192**3 / 2e16


def row_of(folder: Path) -> dict[str, Any]:
    """The only row of a run's trials table."""
    (row,) = pd.read_parquet(folder / "tables" / "trials.parquet").to_dict("records")
    return {str(name): value for name, value in row.items()}


def test_a_trial_of_the_command_line_is_a_row_with_the_card(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = {
        "name": "one",
        "models": ["tiny-llama"],
        "tasks": [task],
        "seeds": [0],
        "budget": {**BUDGET, "train_examples": 32},
        "defaults": {"dtype": "bfloat16", "device": "cuda"},
        "methods": {"lora": {"learning_rate": 1e-4}},
    }
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    command = ["run", str(tmp_path / "one.yaml"), "--out", str(tmp_path / "out")]
    code, _, err = command_line.run(monkeypatch, capsys, *command)
    assert code == 0, err
    row = row_of(tmp_path / "out")
    assert (row["status"], row["device"], row["accelerator"]) == ("ok", "cuda", torch.cuda.get_device_name(CUDA))
    assert row["energy_j"] > 0
    assert pd.isna(row["mfu"]) or 0 < row["mfu"] <= 1  # no value where others use the card at the same time


@pytest.mark.parametrize("method", TRAINED)
def test_a_method_trains_two_steps_and_reloads(method: str, task: str) -> None:
    run = Experiment("tiny-llama", task, "sft", BUDGET, learning_rate=1e-4, dtype="bfloat16", device="cuda")
    tuned = run.apply(method)
    history = run.fit()
    assert {p.device.type for p in tuned.model.parameters()} == {"cuda"}
    assert {p.dtype for p in tuned.trainable.values()} == {torch.float32}
    assert len(history.losses) == 2 and all(map(math.isfinite, history.losses))
    assert history.peak_train_bytes is not None and history.peak_train_bytes >= history.weights_bytes
    assert history.peak_reserved_bytes is not None and history.peak_reserved_bytes >= history.peak_train_bytes
    assert history.first_step_flops and history.activations_bytes
    run.evaluate()
    run.measure_inference(new_tokens=3, repeats=1)
    run.save_and_reload()  # raises when the reloaded network answers differently
    columns: dict[str, Any] = dict(run.record().columns)
    assert columns["accelerator"] == torch.cuda.get_device_name(CUDA)
    assert columns["checkpoint_bytes"] > 0 and columns["decode_s_per_token_p50"] > 0


@pytest.mark.parametrize("double", [True, False])
def test_nf4_weights_take_the_bytes_that_the_estimate_counts(double: bool) -> None:
    args = {"r": 8, "double_quant": double}
    tuned = methods.apply("qlora", load(MODEL, dtype="bfloat16", device="cuda"), **args)
    counted = weights_bytes(tuned.model)
    guessed = estimate(MODEL, "qlora", args, batch_size=1, length=64, dtype="bfloat16", optimizer_dtype=None)
    assert counted == guessed.weights_bytes
    ids = torch.randint(3, 250, (1, 64), device=CUDA)
    tuned.model.train()
    tuned.model(input_ids=ids, labels=ids).loss.backward()
    moved = [name for name, p in tuned.trainable.items() if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(moved) == len(tuned.trainable) // 2  # B alone: it starts at zero, so nothing reaches A yet
    assert weights_bytes(tuned.model) == counted


def peak_of_a_step(base: Base, method: str, batch: int, length: int) -> tuple[int, int]:
    """Bytes kept for backward, and the allocated peak of a second training step."""
    tuned = methods.apply(method, base)
    ids = torch.randint(3, 250, (batch, length), device=CUDA)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    optimizer = torch.optim.AdamW(tuned.trainable.values(), fused=True)
    tuned.model.train()
    with saved_activations(tuned.model) as saved:
        loss = tuned.model(**inputs).loss
    kept = saved.bytes
    del saved
    for step in range(2):
        with peak_memory(CUDA) as peak:
            if step:
                loss = tuned.model(**inputs).loss
            loss.backward()
            del loss
            torch.nn.utils.clip_grad_norm_(tuned.trainable.values(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    assert peak.bytes is not None
    return kept, peak.bytes


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_the_estimate_is_within_7_percent_of_the_allocated_peak(method: str) -> None:
    gc.collect()  # networks of earlier tests
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(CUDA)
    kept, peak = peak_of_a_step(load(MODEL, dtype="bfloat16", device="cuda"), method, 4, 512)
    guessed = estimate(MODEL, method, batch_size=4, length=512, dtype="bfloat16", optimizer_dtype=None)
    told = f"activations {guessed.activations_bytes} of {kept}, peak {guessed.total_bytes} of {peak} - {before}"
    assert guessed.activations_bytes == pytest.approx(kept, rel=0.03), told
    assert guessed.total_bytes == pytest.approx(peak - before, rel=0.07), told


def test_energy_is_that_of_a_card_at_work() -> None:
    a = torch.randn(8192, 8192, dtype=torch.bfloat16, device=CUDA)
    start = time.perf_counter()
    with energy(CUDA) as used:
        while time.perf_counter() - start < 2:
            a @ a
            torch.cuda.synchronize(CUDA)
    seconds = time.perf_counter() - start
    assert used.joules is not None, used.reason
    assert 30 < used.joules / seconds < 1500  # watts


def test_the_measured_peaks_are_those_of_a_gpu() -> None:
    peaks = measure_roofline(CUDA, torch.bfloat16, probe_s=1.0)
    assert peaks.undisturbed and peaks.device == torch.cuda.get_device_name(CUDA)
    assert peaks.flops_per_s > 1e13 and peaks.bytes_per_s > 1e11


@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16", "float16"])
def test_the_format_that_was_asked_for_is_the_one_that_ran(task: str, dtype: str) -> None:
    run = Experiment("tiny-llama", task, "sft", BUDGET, learning_rate=1e-3, dtype=dtype, device="cuda")
    run.apply("full")
    history = run.fit()
    assert history.proof is not None and history.proof.active["dtype"] == dtype, history.proof
    assert formats.rounds_products(CUDA) == (dtype == "tf32")
    assert (history.scaling is not None) == (dtype == "float16")
    formats.use("float32", CUDA)


def wanted(execution: dict[str, Any]) -> None:
    """Skip the test where a package that this way to train needs is not installed."""
    needs = {"liger": "liger_kernel", "flash_attention_2": "flash_attn", "lion": "bitsandbytes"}
    for value in execution.values():
        if value in needs:
            pytest.importorskip(needs[value])


@pytest.mark.parametrize(
    "execution",
    [
        {"optimizer": "adamw_8bit"},
        {"optimizer": "paged_adamw_8bit"},
        {"optimizer": "adafactor"},
        {"optimizer": "lion"},
        {"loss": "chunked"},
        {"loss": "liger"},
        {"attention": "eager"},
        {"attention": "flash_attention_2"},
        {"attention": "flex_attention"},
        {"compile": True},
        {"packing": True},
        {"packing": True, "loss": "chunked", "gradient_checkpointing": True, "accumulation": 2},
        {"packing": True, "shared_prompts": True},
    ],
    ids=str,
)
def test_the_way_to_train_that_was_asked_for_is_the_one_that_ran(task: str, execution: dict[str, Any]) -> None:
    wanted(execution)
    budget = {**BUDGET, "max_length": 32}
    losses = {}
    for name, how in {"usual": {}, "asked": execution}.items():
        run = Experiment(MODEL, task, "sft", budget, learning_rate=1e-5, dtype="bfloat16", device="cuda", execution=how)
        run.apply("full")
        history = run.fit()  # raises where what was asked for is not active
        assert history.proof is not None
        assert {field: history.proof.active[field] for field in how} == how, history.proof
        losses[name] = history.losses
    # The first loss is from before any update, and how it is computed does not change it.
    assert losses["asked"][0] == pytest.approx(losses["usual"][0], rel=5e-3)


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_flops_are_the_same_as_on_a_cpu(method: str) -> None:
    # Other kernels run there, of attention and of 4-bit products; the arithmetic is the same.
    tuned = methods.apply(method, load("tiny-llama", dtype="bfloat16", device="cuda"))
    ids = torch.randint(3, 250, (2, 24), device=CUDA)
    tuned.model.train()
    with FlopCounter() as counted:
        tuned.model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
    guessed = estimate("tiny-llama", method, batch_size=2, length=24, dtype="bfloat16", optimizer_dtype=None)
    assert counted.flops == pytest.approx(guessed.flops, rel=0.01)
