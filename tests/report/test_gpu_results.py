"""What a run on a large GPU brought back becomes tables and a page: how far were peaks from their estimates?"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_results.py"
ROW: dict[str, object] = {
    "trial_id": "a", "model": "m", "method": "lora", "status": "ok", "reason": None, "batch_size": 4,
    "max_length": 1024, "train_tokens_per_s": 9876.5, "train_step_s_median": 0.4147, "mfu": 0.41,
    "weights_bytes": 16e9, "activations_bytes": 30e9, "peak_train_bytes": 51e9, "estimated_bytes": 50e9,
    "energy_j": None,
    "decode_s_per_token_p50": 0.02, "duration_s": 44.0, "accelerator": "Card X", "started_at": "2030-01-01",
    "torch_version": "2.11.0", "transformers_version": "5", "peft_version": "0.21", "trl_version": "1",
    "bitsandbytes_version": "0.50",
}  # fmt: skip


def sweep(out: Path, name: str, rows: list[dict[str, object]]) -> None:
    folder = out / name
    (folder / "tables").mkdir(parents=True)
    pd.DataFrame(rows, columns=list(ROW)).to_csv(folder / "tables" / "trials.csv", index=False)
    (folder / "tables" / "trials.parquet").write_bytes(b"binary")
    (folder / "sweep.yaml").write_text("name: x\n")
    (folder / "plan.json").write_text("{}")
    with tarfile.open(out / f"{name}.tar.gz", "w:gz") as packed:
        packed.add(folder, name)


def run(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, source, out], capture_output=True, text=True, check=False)


def test_a_page_says_how_far_peaks_were_from_their_estimates(tmp_path: Path) -> None:
    failed = {**ROW, "trial_id": "b", "status": "skipped", "reason": "too | large\nmore"}
    failed |= {"peak_train_bytes": None, "estimated_bytes": 200e9}
    sweep(tmp_path, "one", [ROW, failed])
    sweep(tmp_path, "empty", [])
    (tmp_path / "log.txt").write_text("Driver Version: 580.1  CUDA\n1 failed, 2 passed in 99.5s (0:01)\n")
    done = run(tmp_path, tmp_path / "kept")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "kept" / "README.md").read_text()
    assert "Card: Card X; driver 580.1." in page and "torch 2.11.0" in page
    assert "over the plan's estimate, 1 rows: 1.020 to 1.020" in page
    assert (
        "| m | lora | 4 × 1024 | ok | 9,876 | 415 | 0.410 | 16.00 | 30.00 | 50.00 | 51.00 | 1.020 | – | 20.0 | 44 |"
        in page
    )
    assert "| 200.00 | – | – | – | 20.0 | 44 | too / large |" in page
    assert "## empty" not in page and "1 failed, 2 passed in 99.5s" in page
    assert {p.name for p in (tmp_path / "kept" / "one").iterdir()} == {"trials.csv", "sweep.yaml", "plan.json"}


def test_nothing_to_keep_is_said(tmp_path: Path) -> None:
    done = run(tmp_path, tmp_path / "kept")
    assert done.returncode == 1 and "no archive with a table of trials" in done.stderr
    assert not (tmp_path / "kept").exists()
