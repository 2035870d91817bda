"""The command line: exit codes, one line for bad input, and a start that imports nothing heavy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from helpers import command_line
from helpers import tiny_models as tiny
from helpers.command_line import Call

from harness import __version__
from harness.cli.app import parse_only
from harness.errors import InputError
from harness.ledger import claims
from harness.ledger.ledger import Ledger
from harness.runner.run import run
from harness.sweeps import expand as matrix
from harness.sweeps import spec as sweep

#: What takes long to import and no command needs before it works.
HEAVY = ("torch", "pandas", "matplotlib", "numpy", "pyarrow", "papermill", "transformers", "rich.console")


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in this process, in a folder with ``tiny.yaml``: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEBENCH_NOTEBOOKS", str(tmp_path / "notebooks"))
    tiny.bench(tmp_path, methods={"full": {}, "lora": {"r": [4, 8]}}, objectives=["classification", "sft"])

    return partial(command_line.run, monkeypatch, capsys)


def test_the_start_imports_nothing_heavy() -> None:
    code = f"import sys, harness.cli; print([name for name in {HEAVY} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


@pytest.mark.slow
def test_planning_imports_no_torch(tmp_path: Path) -> None:
    tiny.bench(tmp_path)
    code = "import sys\nfrom harness.sweeps import expand, spec\nimport harness.runner.run\n"
    code += f"expand.plan(spec.load({str(tmp_path / 'tiny.yaml')!r}))\n"
    code += "print([name for name in ('torch', 'pandas', 'matplotlib', 'transformers') if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


def test_version_and_help(call: Call) -> None:
    assert call("--version") == (0, f"tunebench {__version__}\n", "")
    code, out, _ = call("--help")
    assert code == 0
    assert "Run the trials of a sweep" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "tyni"], "error: sweep: unknown name 'tyni'"),
        (["plan", "tiny.yaml", "--set", "methods.full.rr=3"], "error: tiny.yaml: methods.full: unknown name 'rr'"),
        (["plan", "tiny.yaml", "--only", "metod=full"], "error: --only: unknown name 'metod'; did you mean 'method'?"),
        (
            ["plan", "tiny.yaml", "--only", "method=head"],
            "error: --only method=head: no trial of the sweep has it; valid: full, lora",
        ),
        (["plan", "tiny.yaml", "--only", "method"], "error: --only method: write KEY=VALUE"),
        (["plan", "tiny.yaml", "--only", "r=4", "--only", "r=8"], "error: --only r=8: 'r' is given twice; write r=A|B"),
        (["run", "tiny.yaml", "--executor", "lokal"], "error: --executor: unknown name 'lokal'; did you mean 'local'?"),
        (["run", "tiny.yaml", "--out", "tiny.yaml/x"], "error: tiny.yaml/x: cannot be written: Not a directory"),
        (["status", "nowhere"], "error: nowhere: no plan.json here"),
        (["trial", "nowhere/trials/x"], "no plan.json here"),
        (["list", "method"], "error: list: unknown name 'method'; did you mean 'methods'?"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(call: Call, arguments: list[str], message: str) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_broken_file_is_told_with_its_line(call: Call, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text("name: tiny\nmodels: [a\n")
    code, _, err = call("plan", "tiny.yaml")
    assert code == 2
    assert err.startswith("error: tiny.yaml: line 3: ")


@pytest.mark.slow
def test_the_plan_as_json_holds_every_row(call: Call) -> None:
    code, out, _ = call("plan", "tiny.yaml", "--json")
    document = json.loads(out)
    assert code == 0
    assert (document["runnable"], document["skipped"]) == (3, 2)
    assert {row["trial"]["method_args"]["r"] for row in document["trials"]} == {4, 8}
    reasons = [row["reason"] for row in document["trials"] if row["status"] == "skipped"]
    assert all(reason.endswith("; 'trec' is classification") for reason in reasons)


def test_the_plan_for_people_counts(call: Call) -> None:
    code, out, _ = call("plan", "tiny.yaml", "--set", "exclude=[{r: 4, objective: classification}]")
    assert code == 0
    assert "2 to run, 2 skipped, 1 excluded, 0 duplicates merged" in out


@pytest.mark.parametrize("what", ["methods", "objectives", "models", "tasks", "sweeps", "claims"])
def test_list_gives_names_and_descriptions(call: Call, what: str) -> None:
    code, out, _ = call("list", what, "--json")
    rows = json.loads(out)
    assert code == 0
    assert rows
    assert all(row["name"] and row["description"] for row in rows)


def test_tables_without_records_tell_how_their_trials_ended(call: Call) -> None:
    quick = Path(__file__).parents[2] / "results" / "cpu" / "quick"
    code, out, _ = call("status", str(quick))
    assert code == 0
    assert out.splitlines()[-1] == "without the records of its trials; its tables say: 18 ok"


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", ["809057490441", "38535876e300", "2024-01-01", "null"])
def test_only_takes_a_name_that_looks_like_a_number_as_it_is_written(name: str) -> None:
    assert parse_only([f"trial_id={name}|lora,task={name},seed=1e3"]) == {
        "trial_id": [name, "lora"],
        "task": [name],
        "seed": [1e3],
    }


@pytest.mark.parametrize("given", ["30s", "0", "-1", "nan", "inf"])
def test_a_lease_that_is_no_time_is_one_line(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("TUNEBENCH_LEASE_S", given)
    with pytest.raises(InputError, match=rf"^\$TUNEBENCH_LEASE_S: '{given}' is not a number of seconds above 0"):
        claims._lease()


def test_run_only_then_the_rest_then_nothing(call: Call, tmp_path: Path) -> None:
    code, out, _ = call("run", "tiny.yaml", "--only", "method=lora", "--only", "r=4", "--out", "here")
    assert code == 0, out
    ledger = Ledger.open(tmp_path / "here")
    assert ledger.status() == {"ok": 1, "skipped": 2, "pending": 2}
    code, out, _ = call("run", "tiny.yaml", "--out", "here", "--jobs", "2")
    assert code == 0, out
    assert " 1 of 5 trials done, 2 skipped, 2 to run\n" in out
    assert call("status", "here", "--json")[1] == '{\n "ok": 3,\n "skipped": 2\n}\n'
    assert call("run", "tiny.yaml", "--out", "here")[:2] == (0, "nothing to do: 5 trials done in here\n")
    code, out, _ = call("tables", "here")
    assert code == 0
    assert "here/tables/trials.parquet: 5 rows" in out


@pytest.mark.slow
@pytest.mark.long
def test_what_failed_runs_again_when_asked(call: Call, tmp_path: Path) -> None:
    arguments = ("run", "tiny.yaml", "--set", "methods={full: {act: raise}}", "--set", "objectives=[classification]")
    assert call(*arguments)[0] == 1
    tiny.notebook(
        tmp_path / "notebooks" / "methods" / "full.ipynb", cells=(tiny.ACT.replace("'raise'", "'-'"), tiny.OUTCOME)
    )
    assert call(*arguments)[0] == 1, "a failed trial is done"
    assert call(*arguments, "--retry")[0] == 0
    (record,) = Ledger.open(tmp_path / "results" / "tiny").records()
    assert (record.status, record.attempt) == ("ok", 2)


def test_a_run_does_not_begin_on_a_full_disk(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5 * 1024**2))
    code, _, err = call("run", "tiny.yaml")
    assert (code, err) == (2, "error: results/tiny: only 5 MB are free on this disk; make room or choose --out\n")
    assert not (tmp_path / "results" / "tiny" / "plan.json").exists()


def test_another_sweep_in_the_same_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEBENCH_NOTEBOOKS", str(tmp_path / "notebooks"))
    made = sweep.load(tiny.bench(tmp_path))
    Ledger.create(tmp_path / "out", matrix.plan(made.model_copy(update={"name": "other"})), "name: other\n")
    with pytest.raises(InputError, match="holds the sweep 'other', not 'tiny'"):
        run(made, tmp_path / "out")
