"""Models that do not come along, in one sweep: a T5 in an own folder, and a decoder from a hub on this machine."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import transformers
import yaml
from helpers import checkpoints
from helpers import hub as hubs

from harness.results import tables

pytestmark = pytest.mark.long

SWEEP = {
    "name": "mine",
    "models": ["./t5", "org/tiny"],
    "tasks": ["teams.yaml", "shout.yaml"],
    "budget": {"train_examples": 16, "batch_size": 4, "max_length": 64, "eval_examples": 4},
    "methods": {
        **{"baseline": {}, "full": {"learning_rate": 1e-3}, "lora": {"r": 2, "learning_rate": 1e-3}},
        **{"bitfit": {"learning_rate": 1e-2}},
    },
    "exclude": [{"model": "org/tiny", "method": ["full", "bitfit"]}],
    "limits": {"time_s": 600},
}
COMMON = {"source": {"local": "rows.csv"}, "prompt": "{body}\nAnswer:", "splits": {"validation": 8, "test": 8}}
TEAMS = {
    **{"name": "teams", "kind": "classification", "label": "team", "labels": {"tech": "tech", "sales": "sales"}},
    **COMMON,
}
SHOUT = {"name": "shout", "kind": "generation", "completion": "{loud}", "max_new_tokens": 8, **COMMON}


def _write(folder: Path) -> None:
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(f"{word} {n}", team, word.upper()) for n in range(24) for word, team in WORDS]
        csv.writer(file).writerows([("body", "team", "loud"), *rows])
    for name, document in (("teams", TEAMS), ("shout", SHOUT), ("mine", SWEEP)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    checkpoints.save(folder / "t5", "t5", transformers.AutoModelForSeq2SeqLM)


WORDS = (("server", "tech"), ("offer", "sales"))


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[pd.DataFrame, hubs.Hub]]:
    place = tmp_path_factory.mktemp("models")
    _write(place)
    tiny = checkpoints.save(place / "tiny", "llama", transformers.AutoModelForCausalLM)
    (tiny / "pytorch_model.bin").write_bytes(b"a pickle")
    with hubs.serve() as hub:
        hub.add("org/tiny", tiny)
        environment = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(place / "hf")}
        done = subprocess.run(
            [sys.executable, "-m", "harness.cli", "run", "mine.yaml", "--out", "results"],
            cwd=place,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield tables.read(place / "results")["trials"], hub


def test_every_trial_of_an_encoder_decoder_is_ok(trials: tuple[pd.DataFrame, hubs.Hub]) -> None:
    rows = trials[0].query("model == 't5'")
    assert sorted(set(rows.status)) == ["ok"], list(rows.reason)
    assert sorted(zip(rows.task, rows.method, strict=True)) == sorted(
        (task, method) for task in ("teams", "shout") for method in ("baseline", "full", "lora", "bitfit")
    )
    trained = rows.query("method != 'baseline'")
    assert set(trained.objective) == {"classification", "sft"} and (trained.train_steps == 4).all()
    measured = ["gradients_bytes", "optimizer_bytes", "activations_bytes", "checkpoint_bytes"]
    assert trained[measured].notna().all(axis=None)
    assert (rows.prefill_s_p50 > 0).all() and (rows.decode_s_per_token_p50 > 0).all()
    assert rows.query("method == 'bitfit'").note.str.contains("zero-initialised biases added").all()


def test_a_model_of_the_hub_is_a_row_with_its_commit(trials: tuple[pd.DataFrame, hubs.Hub]) -> None:
    frame, hub = trials
    rows = frame.query("model == 'org/tiny'")
    assert list(rows.status) == ["ok"] * 4, list(rows.reason)
    assert set(rows.model_revision) == {hub.revisions["org/tiny"]["main"]}
    assert not [request for request in hub.requests if "pytorch_model.bin" in request]
