"""Training in two processes that share the layers (FSDP over gloo): the same numbers as in one process."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import psutil
import pytest
import torch

from harness import catalog, methods, objectives
from harness.errors import InputError
from harness.experiment.parallel import launch
from harness.measure.training import Step
from harness.models.load import load
from harness.sweeps import expand as matrix
from harness.sweeps import spec as sweep
from harness.tasks import data as tasks
from harness.training.trainer import Diverged, History, Point, Settings
from harness.trial import Budget

pytestmark = pytest.mark.slow

BUDGET = Budget(train_examples=12, batch_size=4, max_length=48, eval_examples=4)
SETTINGS = Settings(BUDGET, learning_rate=1e-2, seed=3)


def trained(
    method: str, model: str, task: str, objective: str, together: int
) -> tuple[History, dict[str, torch.Tensor]]:
    data = tasks.load(task, BUDGET, SETTINGS.seed)
    labels = tuple(data.label_words) if data.kind == "classification" else None
    tuned = methods.apply(method, load(model, labels=labels, device="cpu", seed=SETTINGS.seed))
    if together > 1:
        history = launch.fit(objective, tuned, task, SETTINGS, {}, together)
    else:
        history = objectives.fit(objective, tuned, data, SETTINGS)
    return history, {name: p.detach().clone() for name, p in tuned.trainable.items()}


@pytest.mark.parametrize(
    ("method", "model", "task", "objective"),
    [
        pytest.param("full", "tiny-llama", "factual_summary", "sft", marks=pytest.mark.long),
        ("lora", "tiny-llama", "factual_summary", "sft"),
        pytest.param("full", "tiny-bert", "trec", "classification", marks=pytest.mark.long),
    ],
)
def test_two_processes_train_what_one_trains(method: str, model: str, task: str, objective: str) -> None:
    alone, expected = trained(method, model, task, objective, 1)
    together, found = trained(method, model, task, objective, 2)
    assert found.keys() == expected.keys()
    # BERT has dropout, for which each process draws numbers of its own.
    assert together.losses == pytest.approx(alone.losses, rel=1e-4 if model == "tiny-llama" else 0.1)
    for name, tensor in expected.items() if model == "tiny-llama" else ():
        torch.testing.assert_close(
            found[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    # The batch is shared, and each process keeps about half of the states.
    assert [step.tokens for step in together.steps] == [step.tokens for step in alone.steps]
    assert together.optimizer_bytes is not None and alone.optimizer_bytes is not None
    assert 0.4 < together.optimizer_bytes / alone.optimizer_bytes < 0.7


def test_training_moved_something() -> None:
    """The comparison above would hold for weights that never moved, too."""
    untouched = methods.apply("lora", load("tiny-llama", device="cpu", seed=SETTINGS.seed)).trainable
    _, found = trained("lora", "tiny-llama", "factual_summary", "sft", 1)
    assert all(not torch.equal(found[name], tensor) for name, tensor in untouched.items() if "lora_B" in name)


@pytest.mark.long
def test_a_failure_of_a_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = methods.apply("lora", load("tiny-llama", device="cpu"))
    with torch.no_grad():
        next(iter(tuned.trainable.values())).fill_(float("nan"))
    with pytest.raises(Diverged, match="the loss is nan at step 1"):
        launch.fit("sft", tuned, "factual_summary", SETTINGS, {}, 2)
    with pytest.raises(InputError, match="4 cannot be shared by 3 processes"):
        launch.fit("sft", tuned, "factual_summary", SETTINGS, {}, 3)


def listening(pid: int) -> set[str]:
    """Addresses on which a process and those below it listen."""
    top = psutil.Process(pid)
    found = set()
    for process in [top, *top.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            found |= {c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN}
    return found


def test_nothing_listens_beyond_this_machine() -> None:
    tuned = methods.apply("lora", load("tiny-llama", device="cpu"))
    seen: list[set[str]] = []
    settings = Settings(BUDGET, 1e-2, on_step=lambda *_: seen.append(listening(os.getpid())))
    launch.fit("sft", tuned, "factual_summary", settings, {}, 2)
    assert len(seen) == BUDGET.train_steps
    assert set().union(*seen) <= {"127.0.0.1", "::1"}


def test_the_death_of_one_process_ends_the_others() -> None:
    tuned = methods.apply("lora", load("tiny-llama", device="cpu"))

    def kill_the_second(*_: object) -> None:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.environ().get("RANK") == "1":
                    process.kill()

    settings = Settings(BUDGET, 1e-2, on_step=kill_the_second)
    with pytest.raises(RuntimeError, match="training process 1 of 0 to 1 ended with SIGKILL"):
        launch.fit("sft", tuned, "factual_summary", settings, {}, 2)
    left = [
        p
        for p in psutil.Process().children(recursive=True)
        if "harness.experiment.parallel.worker" in " ".join(p.cmdline())
    ]
    assert left == []


def test_a_history_comes_back_as_it_was() -> None:
    history = History((Step(1, 0.5, 10, 2.0),), 1.0, 5, 6, 7, None, 9, curves=(Point(1, "margin", 0.1),))
    assert launch.history_from(json.loads(launch.history_document(history))) == history


def test_what_cannot_be_shared_is_skipped_with_the_cause(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nmodels: [smollm2-135m]\ntasks: [factual_preference]\nobjectives: [sft, dpo]\n"
        "methods: {baseline: {}, lora: {}, prefix: {}}\nresources: {gpus: 4}\n"
    )
    rows = matrix.plan(sweep.load(path)).rows
    found = {(row.trial.method, row.trial.objective): row.reason for row in rows}
    assert found["lora", "sft"] is None and found["baseline", "dpo"] is None, "what does not train has no parents"
    assert [key for key in found if key[0] == "baseline"] == [("baseline", "dpo")]
    assert found["prefix", "sft"] == (
        "method 'prefix' trains on one device, and is given 4; on several train full, lora"
    )
    assert str(found["lora", "dpo"]).startswith("objective 'dpo' trains on one device")
    assert {name for name, entry in catalog.METHODS.items() if entry.shards} == {"full", "lora"}
