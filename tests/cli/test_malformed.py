"""What people mistype, and what strangers send: each is one line on the standard error stream, exit code 2, no file.

The inputs are data, in ``malformed/``: each with what its message has to say, so that it names the field and what would
be valid. All of it is refused before anything heavy is imported.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import cli
from harness.estimate import planned
from harness.sources import fetch

CORPUS = Path(__file__).with_name("malformed")
SWEEP = {
    "name": "s",
    "models": ["minilm-l6-22m"],
    "tasks": ["trec"],
    "methods": {"full": {}, "lora": {"learning_rate": 1e-3}},
    "objectives": ["classification"],
}
TASK = {
    "name": "t",
    "kind": "classification",
    "source": {"local": "rows.csv"},
    "prompt": "Text: {text}\nLabel:",
    "label": "label",
    "labels": {"pos": "good", "neg": "bad"},
    "splits": {"validation": 8, "test": 10},
}
CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 100,
}
#: What pydantic, YAML's parser and Python say among themselves.
FOREIGN = ("Input should", "Traceback", "object has no attribute", "NoneType", "valid string", "errors.pydantic.dev",
           "<stream", "dict", "validation error", "literal[", "constructor", "array")  # fmt: skip

Refused = Callable[..., None]


def entries(name: str) -> Any:
    return yaml.safe_load((CORPUS / f"{name}.yaml").read_text(encoding="utf-8"))


def arguments(name: str) -> Iterator[Any]:
    """The mistakes in arguments, one by one: whose argument, the value, what is said."""
    for owner, of_owner in entries(name).items():
        for argument, mistakes in of_owner.items():
            for value, says in mistakes:
                yield pytest.param(owner, argument, value, says, id=f"{owner}.{argument}={value}")


def content(entry: dict[str, Any]) -> bytes:
    """The bytes of a file that an entry describes."""
    if "bytes" in entry:
        return bytes.fromhex(entry["bytes"])
    if "config" in entry:
        return json.dumps({**CONFIG, **entry["config"]}).encode()
    unit, times = entry.get("repeat", ("", 0))
    text = entry["text"] + unit * times + entry.get("end", "")
    for level in range(1, 12) if "bomb" in entry else ():
        before = ", ".join([f"*a{level - 1}"] * 9)
        text += f"a{level}: &a{level} " + (f"[{before}]\n" if entry["bomb"] == "list" else f"{{<<: [{before}]}}\n")
    return bytes(text, "utf-8")


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Give a command line in a folder with ``s.yaml``, ``tables.txt`` and ``results/``: it has to be refused."""
    folder = tmp_path / "here"
    (folder / "results").mkdir(parents=True)
    (folder / "tables.txt").write_text("no tables", encoding="utf-8")
    (folder / "s.yaml").write_text(yaml.safe_dump(SWEEP, sort_keys=False), encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TUNEBENCH_CACHE", str(tmp_path / "cache"))
    for module, name in ((planned, "_in_processes"), (fetch, "resolve")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("it was not refused in time"))

    def refused(*command: str, says: str) -> None:
        monkeypatch.setattr(sys, "argv", ["tunebench", *command])
        before, start = sorted(tmp_path.rglob("*")), time.process_time()
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        seconds = time.process_time() - start
        out, err = capsys.readouterr()
        assert (exit_.value.code, out) == (2, ""), err
        assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n"), err
        assert says in err
        assert not [word for word in FOREIGN if word in err], err
        assert len(err) < 1000
        assert sorted(tmp_path.rglob("*")) == before
        assert seconds < 5

    return refused


@pytest.mark.parametrize(("given", "says"), entries("set"))
def test_a_field_of_a_sweep(refused: Refused, given: str, says: str) -> None:
    refused("plan", "s.yaml", "--set", given, says=says)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "argument", "value", "says"), list(arguments("methods")))
def test_an_argument_of_a_method(refused: Refused, method: str, argument: str, value: Any, says: str) -> None:
    given = json.dumps({method: {argument: value}})
    refused("plan", "s.yaml", "--set", f"methods={given}", says=f": methods.{method}.{argument}: ")
    refused("run", "s.yaml", "--set", f"methods={given}", says=says)


@pytest.mark.parametrize(("objective", "argument", "value", "says"), list(arguments("objectives")))
def test_an_argument_of_an_objective(refused: Refused, objective: str, argument: str, value: Any, says: str) -> None:
    given = f"objectives={json.dumps({objective: {argument: value}})}"
    decoder = ("--set", "models=[smollm2-135m]", "--set", "tasks=[factual_preference]")
    refused("plan", "s.yaml", *decoder, "--set", given, says=f": objectives.{objective}.{argument}: ")
    refused("plan", "s.yaml", *decoder, "--set", given, says=says)


@pytest.mark.parametrize(("given", "says"), entries("only"))
def test_a_choice_of_trials(refused: Refused, given: str, says: str) -> None:
    refused("plan", "s.yaml", "--only", given, says=says)


@pytest.mark.parametrize(("command", "says"), entries("options"))
def test_a_command_line(refused: Refused, command: list[str], says: str) -> None:
    refused(*command, says=says)


@pytest.mark.parametrize(("given", "says"), entries("serving"))
def test_an_argument_of_a_study(refused: Refused, given: str, says: str) -> None:
    study = ("--set", "models=[smollm2-135m]", "--set", "tasks=[factual_summary]", "--set", "objectives=[sft]")
    refused("plan", "s.yaml", *study, "--set", "methods={serving: {}}", "--set", f"methods.serving.{given}", says=says)


@pytest.mark.parametrize(("source", "arguments", "says"), entries("own_methods"))
def test_a_method_of_ones_own(refused: Refused, source: str, arguments: dict[str, Any], says: str) -> None:
    Path("mine.py").write_text(source, encoding="utf-8")
    refused("plan", "s.yaml", "--set", f"methods={json.dumps({'./mine.py': arguments})}", says=says)


@pytest.mark.parametrize(("changes", "says"), entries("tasks"))
def test_a_task_of_ones_own(refused: Refused, changes: dict[str, Any], says: str) -> None:
    whole = {name: value for name, value in {**TASK, **changes}.items() if value is not None}
    Path("t.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    refused("plan", "s.yaml", "--set", "tasks=[t.yaml]", says="t.yaml: ")
    refused("run", "s.yaml", "--set", "tasks=[t.yaml]", says=says)


@pytest.mark.parametrize("signs", ["-", "(", "["])
def test_python_that_is_nested_too_deep(refused: Refused, signs: str) -> None:
    Path("mine.py").write_text(f"def apply(base, k={signs * 20_000}1): pass\n", encoding="utf-8")
    refused("plan", "s.yaml", "--set", "methods=[./mine.py]", says="mine.py: ")


@pytest.mark.parametrize("entry", entries("files"), ids=lambda entry: entry["says"])
def test_a_sweep_file(refused: Refused, entry: dict[str, Any]) -> None:
    Path("bad.yaml").write_bytes(content(entry))
    refused("plan", "bad.yaml", says="bad.yaml: ")
    refused("run", "bad.yaml", says=entry["says"])


@pytest.mark.parametrize("entry", entries("files"), ids=lambda entry: entry["says"])
def test_a_task_file(refused: Refused, entry: dict[str, Any]) -> None:
    """The same files where a task is expected; what they lack is told in other words."""
    Path("bad.yaml").write_bytes(content(entry))
    of_the_language = "a mapping" not in entry["says"] and "is missing" not in entry["says"]
    refused("plan", "s.yaml", "--set", "tasks=[bad.yaml]", says=entry["says"] if of_the_language else "bad.yaml: ")


@pytest.mark.slow
@pytest.mark.parametrize("entry", entries("models"), ids=lambda entry: entry["says"])
def test_a_model_folder(refused: Refused, entry: dict[str, Any]) -> None:
    Path("m").mkdir()
    Path("m/config.json").write_bytes(content(entry))
    refused("plan", "s.yaml", "--set", "models=[./m]", "--set", "methods=[full]", says=entry["says"])
    refused("estimate", "./m", says=entry["says"])


def test_the_corpus_is_large_and_repeats_nothing() -> None:
    commands = [("set", one[0]) for one in entries("set")] + [("only", one[0]) for one in entries("only")]
    commands += [("options", json.dumps(one[0])) for one in entries("options")]
    commands += [("serving", one[0]) for one in entries("serving")]
    commands += [("tasks", json.dumps(one[0])) for one in entries("tasks")]
    commands += [("own_methods", json.dumps(one[:2])) for one in entries("own_methods")]
    commands += [(name, json.dumps({**one, "says": ""})) for name in ("files", "models") for one in entries(name)]
    commands += [(name, str(one.id)) for name in ("methods", "objectives") for one in arguments(name)]
    assert len(set(commands)) == len(commands) >= 700
