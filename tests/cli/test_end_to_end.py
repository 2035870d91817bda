"""The whole path, as a user walks it: a sweep over real models and real data, its tables, its report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.results import tables

pytestmark = pytest.mark.slow

SWEEP = """
name: small
models: [minilm-l6-22m, smollm2-135m]
tasks: [trec, factual_summary]
seeds: [0]
budget: {train_examples: 16, batch_size: 4, max_length: 96, eval_examples: 8}
methods:
  baseline: {}
  lora: {r: 4, learning_rate: 1e-3}
  qlora: {r: 4, learning_rate: 2e-3}
exclude:
  - {model: smollm2-135m, task: trec}
  - {model: smollm2-135m, method: qlora}
  - {model: minilm-l6-22m, method: lora}
overrides:
  - match: {task: trec}
    budget: {train_examples: 512, batch_size: 16, max_length: 48, eval_examples: 100}
  - match: {task: factual_summary}
    budget: {eval_examples: 4, max_new_tokens: 8}
limits: {time_s: 600}
"""


def tunebench(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sweep")
    (place / "small.yaml").write_text(SWEEP)
    done = tunebench("run", place / "small.yaml", "--out", place / "small")
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "small"


def test_every_cell_is_a_row_and_every_possible_one_is_ok(folder: Path) -> None:
    trials = tables.read(folder)["trials"].set_index(["method", "model", "task"])
    possible = trials[~((trials.index.get_level_values("model") == "minilm-l6-22m")
                        & (trials.index.get_level_values("task") == "factual_summary"))]  # fmt: skip
    assert list(possible.status) == ["ok"] * 4, list(possible.reason)
    impossible = trials.drop(possible.index)
    assert list(impossible.status) == ["skipped"] * 2
    assert impossible.reason.str.contains("encoder").all()


def test_what_was_measured_is_there_and_adds_up(folder: Path) -> None:
    frames = tables.read(folder)
    row = frames["trials"].query("method == 'lora'").iloc[0]
    assert row.train_steps == 4
    assert row.total_params - row.trainable_params == 134_515_008
    # Rank 4 on every linear layer: A and B in float32, and Adam's two moments (and a step count) of each.
    assert row.gradients_bytes == 4 * row.trainable_params
    assert 0 <= row.optimizer_bytes - 8 * row.trainable_params < 100_000
    assert row.weights_bytes == pytest.approx(4 * row.total_params, rel=0.01)
    assert row.peak_train_bytes > row.weights_bytes + row.activations_bytes
    assert row.checkpoint_bytes == pytest.approx(4 * row.trainable_params, rel=0.05)
    assert row.decode_tokens_per_s == pytest.approx(1 / row.decode_s_per_token_p50)
    losses = frames["curves"].query("trial_id == @row.trial_id and metric == 'loss'").value
    assert len(losses) == 4


def test_training_teaches_something(folder: Path) -> None:
    trials = tables.read(folder)["trials"].query("task == 'trec' and status == 'ok'").set_index("method")
    curves = tables.read(folder)["curves"]
    losses = curves[(curves.trial_id == trials.trial_id["qlora"]) & (curves.metric == "loss")].value.tolist()
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert trials.base_score["qlora"] == trials.test_score["baseline"]


def test_a_second_run_has_nothing_to_do(folder: Path) -> None:
    records = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/record.json")}
    done = tunebench("run", folder.parent / "small.yaml", "--out", folder)
    assert done.returncode == 0 and "nothing to do" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/record.json")} == records


def test_the_executed_notebooks_are_kept_with_their_outputs(folder: Path) -> None:
    for path in folder.glob("trials/*/notebook.ipynb"):
        cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        assert all(c["execution_count"] for c in cells) and any(c["outputs"] for c in cells)


def test_the_report_is_one_page(folder: Path) -> None:
    done = tunebench("report", folder, "--out", folder / "page")
    assert done.returncode == 0, done.stderr
    assert "qlora" in (folder / "page" / "index.html").read_text()
    assert len(list((folder / "page" / "figures").glob("*.png"))) >= 6


RANDOM = """
name: random
models: [tiny-llama]
tasks: [factual_preference]
seeds: [0]
budget: {train_examples: 8, batch_size: 4, epochs: 1, max_length: 160, eval_examples: 2, max_new_tokens: 4}
objectives: {dpo: {}, ppo: {}}
methods:
  peft:
    peft_type: ADALORA
    config: {init_r: 4, target_r: 2, target_modules: all-linear}
    learning_rate: 1e-3
limits: {time_s: 300}
"""


@pytest.mark.long
def test_random_weights_are_measured_and_have_no_quality(tmp_path: Path) -> None:
    """With AdaLoRA, whose schedule needs the length of the training, in every link of a chain."""
    (tmp_path / "random.yaml").write_text(RANDOM)
    out = tmp_path / "random"
    done = tunebench("run", tmp_path / "random.yaml", "--out", out, "--report", tmp_path / "page")
    assert done.returncode == 0, done.stdout + done.stderr
    frames = tables.read(out)
    trials = frames["trials"]
    assert dict(zip(trials.objective, trials.status, strict=True)) == dict.fromkeys(
        ("sft", "reward", "dpo", "ppo"), "ok"
    )
    assert trials[["valid_score", "test_score", "test_stderr"]].isna().all(axis=None)
    assert frames["scores"].empty
    assert trials.note.str.contains("random weights").all()
    assert trials[["train_tokens", "peak_train_bytes", "checkpoint_bytes"]].notna().all(axis=None)
    assert (trials.energy_j.isna() == trials.energy_reason.notna()).all()
    assert "random weights" in (tmp_path / "page" / "index.html").read_text()
