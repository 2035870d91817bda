"""``tunebench show``: a task's data as models read it, a model's facts, a trial's scores, curves and answers."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest
import yaml
from helpers import checkpoints, command_line, fake_records
from helpers.command_line import Call

from harness.cli.shown import plain, sparkline

TASK = {
    "name": "tickets",
    "kind": "classification",
    "source": {"local": "tickets.csv"},
    "prompt": "Ticket: {body}\nTeam:",
    "text": "{body}",
    "label": "team",
    "labels": {"billing": "billing", "tech": "technical"},
    "splits": {"validation": 4, "test": 4},
}


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in a folder with ``tickets.yaml``: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEBENCH_CACHE", str(tmp_path / "cache"))
    rows = [f"[red]text {i}[/red],{'tech' if i % 3 else 'billing'}" for i in range(20)]
    (tmp_path / "tickets.csv").write_text("body,team\n" + "\n".join([*rows, "x,"]))
    (tmp_path / "tickets.yaml").write_text(yaml.safe_dump(TASK))

    return partial(command_line.run, monkeypatch, capsys)


def test_a_task_is_shown_with_what_was_left_out_its_labels_and_its_majority(call: Call) -> None:
    code, out, err = call("show", "tickets.yaml")
    assert (code, err) == (0, "")
    assert "splits   train 12, validation 4, test 4" in out
    assert "left out  tickets.csv: 1 of 21 rows are left out: 'team' is empty or missing (first: line 22)" in out
    document = json.loads(call("show", "tickets.yaml", "--json")[1])
    assert document["splits"] == {"train": 12, "validation": 4, "test": 4}
    counts = document["labels"]
    assert sum(counts["billing"].values()) == 7 and sum(counts["tech"].values()) == 13
    assert document["majority"] == {"label": "tech", "accuracy": counts["tech"]["test"] / 4}
    assert f"always answering 'tech' scores {counts['tech']['test'] / 4:.3f} in accuracy on test" in out
    assert document["primary_metric"] == "accuracy" and document["source"].endswith("tickets.csv")
    assert "minilm-l6-22m is not in the cache" in out, "nothing is downloaded to show a task"
    assert "| Ticket: [red]text" in out, "markup in data is text"


def test_examples_are_shown_as_an_encoder_and_a_decoder_read_them(call: Call, tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "enc", "bert")
    checkpoints.save(tmp_path / "dec", "llama")
    readers = ["--model", "./enc", "--model", "./dec"]
    document = json.loads(call("show", "tickets.yaml", *readers, "--json")[1])
    (example, _) = document["examples"]
    (text,) = example["read"]["./enc"]
    prompt, answer = example["read"]["./dec"]
    assert text["shown"] == example["text"]
    assert prompt["shown"].endswith(example["prompt"])
    assert answer["shown"] == f" {example['references'][0]}</s>" and answer["ids"][-1] == checkpoints.END
    out = call("show", "tickets.yaml", *readers)[1]
    assert f"./dec reads as answer, {len(answer['ids'])} tokens:\n    |  {example['references'][0]}</s>" in out
    cut = json.loads(call("show", "tickets.yaml", *readers, "--json", "--max-length", "15")[1])["examples"][0]["read"]
    assert [len(part["ids"]) for part in cut["./enc"]] == [15] and sum(len(p["ids"]) for p in cut["./dec"]) <= 15


def test_a_model_is_shown_from_the_registry_and_from_a_folder(call: Call, tmp_path: Path) -> None:
    document = json.loads(call("show", "smollm2-135m", "--json")[1])
    facts = {name: document[name] for name in ("kind", "family", "params", "layers", "context", "license", "is_here")}
    assert facts == {
        **{"kind": "decoder", "family": "smollm2", "params": 134_515_008, "layers": 30, "context": 8192},
        **{"license": "Apache-2.0", "is_here": False},
    }
    assert {"lora", "full", "llama_adapter"} <= set(document["methods"])
    assert "llama_adapter" not in json.loads(call("show", "minilm-l6-22m", "--json")[1])["methods"]
    checkpoints.save(tmp_path / "dec", "llama")
    own = json.loads(call("show", "dec", "--json")[1])
    assert (own["kind"], own["architecture"], own["layers"], own["context"]) == ("decoder", "llama", 2, 96)
    assert own["params"] and own["is_here"] and own["license"] is None
    out = call("show", "./dec")[1]
    assert f"parameters       {own['params']:,}\n" in out and "on this machine  yes" in out


def test_a_trial_is_shown_with_ending_scores_curves_and_answers(call: Call, tmp_path: Path) -> None:
    (trial_id, *_) = fake_records.make_sweep(tmp_path / "sweep", n_methods=2, seeds=1, rates=1)
    folder = tmp_path / "sweep" / "trials" / trial_id
    code, out, err = call("show", str(folder))
    assert (code, err) == (0, "")
    assert trial_id in out and re.search(r"^ended +ok after", out, re.MULTILINE) and "answer 1" in out
    record = json.loads((folder / "record.json").read_text())
    document = json.loads(call("show", str(folder), "--json")[1])
    assert (document["trial_id"], document["status"], document["reason"]) == (trial_id, "ok", None)
    assert document["tables"]["scores"] == record["outcome"]["tables"]["scores"]
    assert document["notebook"] is None
    (folder / "notebook.ipynb").write_text("{}")
    shown = re.search(r"^notebook +(.+)$", call("show", str(folder))[1], re.MULTILINE)
    assert shown is not None and shown[1] == str(folder / "notebook.ipynb")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("trek", "error: show: unknown name 'trek'; did you mean 'trec'?"),
        ("smolm2-135m", "error: show: unknown name 'smolm2-135m'; did you mean 'smollm2-135m'?"),
        ("none.yaml", "error: task: there is no file 'none.yaml'"),
        ("./nowhere", "error: show: ./nowhere: there is no such folder"),
        (".", "error: show: .: neither a model (config.json) nor a trial (trial.json) is in this folder"),
    ],
)
def test_what_does_not_exist_is_told(call: Call, what: str, message: str) -> None:
    code, out, err = call("show", what)
    assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith(message)


def test_a_mistake_in_the_data_is_told(call: Call, tmp_path: Path) -> None:
    (tmp_path / "tickets.csv").write_text("body;team\nx;tech\n")
    code, out, err = call("show", "tickets.yaml")
    assert (code, out) == (2, "") and "set reader.delimiter" in err


def test_control_characters_are_shown_as_escapes() -> None:
    assert plain("a\x1b[2Jb\rc\td\ne\u202ef") == "a\\x1b[2Jb\\rc\td\ne\\u202ef"
    assert plain("नमस्ते 👩‍👩‍👧") == "नमस्ते 👩‍👩‍👧"
    assert plain("x" * 5000) == "x" * 750 + " … 3500 characters … " + "x" * 750


def test_a_curve_is_one_line() -> None:
    assert sparkline([0.0, 1.0, 2.0, 7.0]) == "▁▂▃█"
    assert sparkline([3.0, 3.0]) == "▁▁"
    assert len(sparkline([float(i) for i in range(1000)])) == 60
