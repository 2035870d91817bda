"""The studies and the benchmarks of measuring run from top to bottom, on models of a few thousand parameters."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.lengths import long_after

ROOT = Path(__file__).resolve().parents[2]
TINY = "tiny-llama"
STUDIES: dict[str, dict[str, Any]] = {
    "memory": {"model": TINY, "measured_model": TINY, "ladder": [TINY, "tiny-bert"], "length": 32},
    "execution": {"model": TINY, "repeats": 2, "fields": {"packing": True, "accumulation": 2}, "device": "cpu"},
    "serving": {
        **{"model": TINY, "tenants": [1, 3], "new_tokens": 3, "prompt_tokens": 4, "rounds": 1, "device": "cpu"},
        **{"strategies": ["base alone", "copies", "batched LoRA"], "merged_methods": ["lora"]},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", long_after(1, ["serving", "execution", "memory"]))
def test_a_study_runs_and_shows_its_pictures(name: str, tmp_path: Path) -> None:
    import papermill

    out = tmp_path / "out.ipynb"
    source = ROOT / "notebooks" / "studies" / f"{name}.ipynb"
    papermill.execute_notebook(source, out, parameters=STUDIES[name], kernel_name="python3", progress_bar=False)
    shown = [
        output.get("data", {}) for cell in json.loads(out.read_text())["cells"] for output in cell.get("outputs", ())
    ]
    assert sum("image/png" in data for data in shown) >= 2
    assert sum("text/html" in data for data in shown) >= 2


def benchmark(name: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_the_estimate_is_held_against_a_real_step(tmp_path: Path) -> None:
    page = tmp_path / "estimate.md"
    models = ("--models", TINY, "--methods", "lora", "--batches", "4", "--lengths", "64")
    table = benchmark("estimate", *models, "--out", str(page))
    assert f"| {TINY} | lora | 4 | 64 |" in table
    assert "Rows that miss an aim or fail: 0." in table
    assert "Made by `python benchmarks/estimate.py --models tiny-llama" in page.read_text()


@pytest.mark.long
def test_the_overheads_are_printed_as_ratios() -> None:
    small = ("--model", TINY, "--batch", "2", "--length", "16", "--rounds", "1")
    assert "measured / blind: " in benchmark("measure_overhead", *small)
    assert "harness / bare: " in benchmark("step_overhead", *small)
