"""A user's own data on the command line: what is wrong with it comes out before the first trial."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import yaml
from helpers import command_line
from helpers import tiny_models as tiny
from helpers.command_line import Call

from harness.runner.executors import slurm

TASK = {
    "name": "tickets",
    "kind": "classification",
    "source": {"local": "tickets.csv"},
    "prompt": "{body}",
    "label": "team",
    "labels": {"billing": "billing", "tech": "technical"},
    "splits": {"validation": 2, "test": 2},
}
ROWS = [f"text {i},tech" for i in range(20)]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line on ``tiny.yaml``, whose task is ``tickets.yaml``: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEBENCH_NOTEBOOKS", str(tmp_path / "notebooks"))
    tiny.bench(tmp_path, tasks=["tickets.yaml"], budget={"train_examples": 8})
    (tmp_path / "tickets.yaml").write_text(yaml.safe_dump(TASK))

    return partial(command_line.run, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["plan", "run", "run --executor slurm"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("body,taem\na,tech\n", "tickets.csv: unknown name 'team'; did you mean 'taem'"),
        ("body,team\n\xe9,tech\n", "tickets.csv: byte 10 is not utf-8; set reader.encoding"),
        (
            "body,team\n" + "\n".join([*ROWS, "x,tehc"]),
            "line 22: field 'team': unknown name 'tehc'; did you mean 'tech'",
        ),
        ("body,team\n" + "\n".join([*ROWS, "x,", "y,", "z,"]), "3 of 23 rows are left out: 'team' is empty or missing"),
        ("body,team\n" + "\n".join(ROWS[:11]), "budget.train_examples: 8 are asked for, and task 'tickets' has 7"),
        ("body,team\n" + "\n".join([*ROWS, "a", "b,tech"]), "line 22 has fewer values than columns, 1 for 2"),
        ("body;team\na;tech\n", "set reader.delimiter: \";\"; columns: 'body;team'"),
        ("body,team\n" + "\n".join(ROWS[:3]), "splits.validation: 2 inputs are asked for, 1 are left"),
        (None, "tickets.csv does not exist"),
    ],
)
def test_a_mistake_in_the_data_is_one_line_before_the_first_trial(
    call: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    content: str | None,
    message: str,
) -> None:
    monkeypatch.setattr(slurm.SlurmExecutor, "check", lambda _resources: None)  # as if there were one
    if content is not None:
        (tmp_path / "tickets.csv").write_bytes(content.encode("latin-1"))
    code, out, err = call(*command.split(), "tiny.yaml")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "results").exists(), "nothing is left of a run that was refused"


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_dialogue_that_cannot_be_learnt_is_told_before_the_first_trial(
    call: Call, tmp_path: Path, command: str
) -> None:
    asked = [{"role": "usr" if i == 7 else "user", "content": f"hello {i}"} for i in range(20)]
    rows = [{"turns": [turn, {"role": "assistant", "content": "yes"}]} for turn in asked]
    (tmp_path / "chat.jsonl").write_text("\n".join(map(json.dumps, rows)))
    chat = {"name": "chat", "kind": "generation", "dialogue": "turns", "splits": TASK["splits"]}
    (tmp_path / "chat.yaml").write_text(yaml.safe_dump({**chat, "source": {"local": "chat.jsonl"}}))
    tiny.bench(tmp_path, models=["smollm2-135m"], tasks=["chat.yaml"], budget={"train_examples": 8})
    code, out, err = call(command, "tiny.yaml", "--force")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "chat.jsonl: line 8: column 'turns': dialogue: role: unknown name 'usr'; did you mean 'user'?" in err


@pytest.mark.slow
def test_a_task_of_the_package_is_opened_where_its_data_is_here(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.bench(tmp_path, tasks=["sst2"], budget={"train_examples": 8})
    monkeypatch.setenv("TUNEBENCH_DATA", str(tmp_path / "data"))
    code, out, _ = call("plan", "tiny.yaml", "--force")
    assert code == 0, "elsewhere its data may be"
    assert "no time for sst2, whose data is not here yet: `tunebench fetch tiny.yaml` brings it" in out.splitlines()
    assert json.loads(call("plan", "tiny.yaml", "--force", "--json")[1])["not_here"] == ["sst2"]
    code, out, err = call("run", "tiny.yaml", "--force")
    assert (code, out, err.count("\n")) == (2, "", 1) and "sst2 does not exist" in err
    (tmp_path / "data" / "sst2").mkdir(parents=True)
    for split in ("train", "dev", "test"):
        (tmp_path / "data" / "sst2" / f"{split}.tsv").write_text("good\t1\nbad\t2\n")
    code, out, err = call("plan", "tiny.yaml", "--force")
    assert (code, out) == (2, "") and "line 2: field 'label': unknown name '2'" in err


def test_the_plan_says_what_is_left_out(call: Call, tmp_path: Path) -> None:
    (tmp_path / "tickets.csv").write_text("body,team\n" + "\n".join([*ROWS, "x,"]))
    line = "tickets.csv: 1 of 21 rows are left out: 'team' is empty or missing (first: line 22)"
    code, out, _ = call("plan", "tiny.yaml")
    assert code == 0 and out.splitlines()[-1] == f"task 'tickets': {line}"
    document = json.loads(call("plan", "tiny.yaml", "--json")[1])
    assert document["data"] == {"tickets": [line]}
    assert document["not_here"] == [] and "no time" not in out, "it is here"


@pytest.mark.slow
def test_a_run_says_what_is_left_out(call: Call, tmp_path: Path) -> None:
    (tmp_path / "tickets.csv").write_text("body,team\n" + "\n".join([*ROWS, "x,"]))
    code, _, err = call("run", "tiny.yaml", "--cold")
    assert code == 0
    assert "task 'tickets': tickets.csv: 1 of 21 rows are left out: 'team' is empty or missing (first: line 22)" in err
