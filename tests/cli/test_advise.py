"""``tunebench advise``: from a data file to a task and a sweep that plan, and run, as they are."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import transformers
from helpers import checkpoints, command_line
from helpers.command_line import Call
from helpers.files_as_found import FORMS

from harness.estimate import planned
from harness.methods import bitfit
from harness.sweeps import spec
from harness.tasks.spec import load_spec

GB = 10**9
RATE = "{learning_rate: 0.01}"


def size_of(setting: planned.Setting) -> int:
    return 8 * GB if setting.method == "full" else 2 * GB


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line in a folder with every form of file, where a full step needs 8 GB and any other 2."""

    def steps(settings: list[planned.Setting], watch: planned.Watch) -> dict[planned.Setting, planned.Peak]:
        return {setting: planned.Step(size_of(setting), 10**9) for setting in settings}

    monkeypatch.setattr(planned, "_in_processes", steps)
    monkeypatch.setenv("TUNEBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TUNEBENCH_FLOPS_PER_S", "1e12")
    monkeypatch.chdir(tmp_path)
    for name, (content, *_) in FORMS.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    return partial(command_line.run, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_file_becomes_a_sweep_that_plans_as_it_is(call: Call, tmp_path: Path, name: str) -> None:
    kind = FORMS[name][1]
    model = "minilm-l6-22m" if kind in ("classification", "regression") else "smollm2-135m"
    code, out, err = call("advise", name, "--model", model, "--memory", "24GB", "--out", "out")
    assert code == 0, err
    assert f"{name} was taken for {FORMS[name][2]}" in out
    code, out, err = call("plan", "out/sweep.yaml", "--memory", "24GB", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["runnable"] > 2 and document["skipped"] == 0
    assert load_spec("out/task.yaml").kind == kind
    lines = (tmp_path / "out" / "sweep.yaml").read_text().splitlines()
    assert all("#" in line for line in lines if line.startswith(("seeds", "  ")))


def test_what_does_not_fit_the_memory_is_left_out_with_its_reason(call: Call, tmp_path: Path) -> None:
    assert call("advise", "tickets.csv", "--model", "minilm-l6-22m", "--memory", "4GB", "--out", "out")[0] == 0
    sweep = spec.load("out/sweep.yaml")
    assert "full" not in sweep.methods and "lora" in sweep.methods
    text = (tmp_path / "out" / "sweep.yaml").read_text()
    assert "# left out: full: a step of 8 x 32 tokens is estimated to need 8 GB, more than the 4 GB" in text
    assert "# left out: qlora: lora fits, and its steps are faster" in text
    code, _, err = call("advise", "tickets.csv", "--model", "minilm-l6-22m", "--memory", "1GB", "--out", "none")
    assert code == 2 and err.startswith("error: --memory: no method fits: ") and not (tmp_path / "none").exists()


def test_hours_buy_seeds_rates_and_methods(call: Call) -> None:
    """At this speed a trial takes about 3 s."""
    sizes = {}
    for hours in (1.0, 0.0132, 0.001):
        command = ("advise", "tickets.csv", "--model", "minilm-l6-22m", "--memory", "24GB", "--hours", str(hours))
        assert call(*command, "--out", "out", "--force")[0] == 0
        sweep = spec.load("out/sweep.yaml")
        rates = sweep.methods["lora"]["learning_rate"]
        sizes[hours] = len(sweep.methods), len(sweep.seeds), len(rates) if isinstance(rates, list) else 1
    assert sizes == {1.0: (6, 3, 3), 0.0132: (5, 3, 1), 0.001: (2, 1, 1)}


def test_files_are_replaced_only_if_asked_and_mistakes_leave_none(call: Call, tmp_path: Path) -> None:
    command = ("advise", "tickets.csv", "--model", "minilm-l6-22m", "--memory", "24GB")
    assert call(*command)[0] == 0 and (tmp_path / "tickets-sweep" / "sweep.yaml").exists()
    (tmp_path / "tickets-sweep" / "task.yaml").write_text("mine")
    code, out, err = call(*command)
    assert (code, out) == (2, "") and "tickets-sweep/task.yaml is there already; give another folder, or --force" in err
    assert (tmp_path / "tickets-sweep" / "task.yaml").read_text() == "mine"
    assert call(*command, "--force")[0] == 0
    for mistake, message in (
        (("completions.jsonl", "--model", "minilm-l6-22m"), "is an encoder, and a generation task needs a decoder"),
        (("tickets.csv", "--model", "minilm-l6-22m", "--goal", "fame"), "--goal: unknown name 'fame'"),
        (("tickets.csv", "--model", "minilm-l6-22m", "--hours", "0"), "--hours: 0 is no time"),
        (("none.csv", "--model", "minilm-l6-22m"), "none.csv does not exist"),
        (("tickets.csv", "--model", "minilm"), "minilm-l6-22m"),
    ):
        code, out, err = call("advise", *mistake, "--out", "other")
        assert (code, out, err.count("\n")) == (2, "", 1) and message in err
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "family", "auto", "given"),
    [
        ("tickets.csv", "bert", transformers.AutoModel, f"methods={{bitfit: {RATE}, copy.py: {RATE}}}"),
        pytest.param(
            *("completions.jsonl", "llama", transformers.AutoModelForCausalLM, "keep_artifacts=false"),
            marks=pytest.mark.long,
        ),
    ],
)
def test_what_is_advised_runs_also_with_a_method_of_one_s_own(
    call: Call, tmp_path: Path, name: str, family: str, auto: object, given: str
) -> None:
    checkpoints.save(tmp_path / "model", family, auto)
    memory = ("--memory", "24GB")
    assert call("advise", name, "--model", "./model", "--hours", "0.0001", "--out", "out", *memory)[0] == 0
    (tmp_path / "out" / "copy.py").write_text(Path(bitfit.__file__).read_text())
    # The plan leaves its estimates in the cache, so that the run makes none.
    assert call("plan", "out/sweep.yaml", "--set", given, *memory)[0] == 0
    command = [sys.executable, "-m", "harness.cli", "run", "out/sweep.yaml", "--out", "it", "--set", given, *memory]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tables = {name: pd.read_parquet(tmp_path / "it" / "tables" / f"{name}.parquet") for name in ("trials", "curves")}
    trials, curves = tables["trials"], tables["curves"]
    assert list(trials.status) == ["ok"] * 2, list(trials.reason)
    assert trials.test_score.notna().all()
    if family == "bert":
        shipped, own = (trials[trials.method == method].iloc[0] for method in ("bitfit", "own:copy"))
        same = ["valid_score", "test_score", "trainable_params", "checkpoint_bytes", "train_tokens"]
        assert list(shipped[same]) == list(own[same]) and len(own.method_version) == 12
        losses = curves[curves.metric == "loss"].groupby("trial_id").value.apply(list)
        assert losses[shipped.trial_id] == losses[own.trial_id]
