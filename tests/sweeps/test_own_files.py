"""A user's own task file and model folder in a sweep: from any folder, by short names, told apart by their content."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import InputError
from harness.estimate.planned import Setting
from harness.experiment.parallel import launch
from harness.files import TRIAL_FILE, sha256
from harness.ledger.ledger import Ledger
from harness.models.spec import load_spec as load_model
from harness.results import tables
from harness.sources import own_files
from harness.sweeps import expand as matrix
from harness.sweeps import spec as sweep
from harness.sweeps.plan import Plan
from harness.tasks.spec import load_spec as load_task
from harness.trial import Trial

TASK = """\
name: tickets
kind: classification
source: {local: tickets.csv}
prompt: "Ticket: {body}\\nTeam:"
label: team
labels: {billing: billing, tech: technical, sales: sales}
splits: {validation: 8, test: 8}
"""
SWEEP = {
    "name": "my",
    "models": ["./model"],
    "tasks": ["tickets.yaml"],
    "budget": {"train_examples": 8, "batch_size": 4, "max_length": 48, "eval_examples": 4},
    "methods": {"baseline": {}, "lora": {"r": 2, "learning_rate": 1e-3}},
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_task(path: Path, cell: str = "the server number 0 is wrong", text: str = TASK) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    with (path.parent / "tickets.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(f"my {word} number {n} is wrong", team) for n in range(13) for word, team in TEAMS]
        csv.writer(file).writerows([("body", "team"), (cell, "tech"), *rows])


TEAMS = (("server", "tech"), ("invoice", "billing"), ("offer", "sales"))


def write_model(folder: Path, weights: bytes = b"weights") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(weights)


def write_sweep(folder: Path, **changes: Any) -> Path:
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump({**SWEEP, **changes}), encoding="utf-8")
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's folder: a task, its data, a model without real weights, and a sweep over them."""
    folder = tmp_path / "home"
    write_task(folder / "tickets.yaml")
    write_model(folder / "model")
    write_sweep(folder)
    return folder


def plan_of(path: Path | str, *overrides: str) -> Plan:
    return matrix.plan(sweep.load(path, overrides))


def ids(path: Path | str, *overrides: str) -> list[str]:
    return [row.trial_id for row in plan_of(path, *overrides).rows]


def test_a_sweep_is_planned_alike_from_every_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ids(home / "my.yaml")
    elsewhere = home.parent / "elsewhere"
    elsewhere.mkdir()
    for folder, path in ((home, "my.yaml"), (home.parent, "home/my.yaml"), (elsewhere, "../home/my.yaml")):
        monkeypatch.chdir(folder)
        made = plan_of(path)
        assert [row.trial_id for row in made.rows] == expected
        for row in made.rows:
            assert (row.trial.model, row.trial.task) == ("model", "tickets")
            given = row.trial.parameters()
            assert (given["model"], given["task"]) == (str(home / "model"), str(home / "tickets.yaml"))
    assert len(expected) == 2


@pytest.mark.parametrize("task", ["./tickets.yaml", "sub/../tickets.yaml", "{home}/tickets.yaml"])
@pytest.mark.parametrize("model", ["model/", "../home/model", "{home}/model"])
def test_every_form_of_a_path_is_the_same_trial(home: Path, task: str, model: str) -> None:
    (home / "sub").mkdir()
    expected = ids(home / "my.yaml")
    changed = [f"tasks=['{task.format(home=home)}']", f"models=['{model.format(home=home)}']"]
    assert ids(home / "my.yaml", *changed) == expected


def test_a_path_is_relative_to_the_sweep_first_then_to_the_current_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    write_task(elsewhere / "tickets.yaml", text=TASK.replace("tickets\n", "other\n"))
    write_task(elsewhere / "here.yaml", text=TASK.replace("tickets\n", "here\n"))
    monkeypatch.chdir(elsewhere)
    made = plan_of(home / "my.yaml", "tasks=[tickets.yaml, here.yaml]")
    assert {row.trial.task: row.trial.paths["task"] for row in made.rows} == {
        "tickets": str(home / "tickets.yaml"),
        "here": str(elsewhere / "here.yaml"),
    }


def test_the_content_makes_the_trial(home: Path) -> None:
    first = {row.trial_id: row.trial for row in plan_of(home / "my.yaml").rows}
    trial = next(iter(first.values()))
    assert trial.task_version is not None and trial.model_revision is not None
    number, _, digits = trial.task_version.partition("+")
    assert number == "1" and len(digits) == len(trial.model_revision) == 12
    assert int(digits, 16) and int(trial.model_revision, 16)

    (home / "model" / "README.md").write_text("about")
    (home / "other.csv").write_text("not read")
    assert ids(home / "my.yaml") == list(first), "what is not read changes nothing"
    write_task(home / "tickets.yaml", cell="the server number 0 is wrang")
    second = plan_of(home / "my.yaml").rows
    assert not {row.trial_id for row in second} & set(first)
    assert {row.trial.model_revision for row in second} == {trial.model_revision}
    write_model(home / "model", b"Weights")
    third = plan_of(home / "my.yaml").rows
    assert {row.trial.task_version for row in third} == {row.trial.task_version for row in second}
    assert not {row.trial_id for row in third} & {row.trial_id for row in second}


def test_every_file_that_a_task_reads_is_in_its_version(home: Path) -> None:
    text = TASK.replace("tickets.csv}", ".}").replace("{validation: 8,", "{train: tickets.csv, validation: 8,")
    (home / "parts.yaml").write_text(text.replace("test: 8", "test: held.csv"))
    shutil.copy(home / "tickets.csv", home / "held.csv")
    task = load_task(str(home / "parts.yaml"))
    versions = {task.full_version()}
    for name in ("tickets.csv", "held.csv", "parts.yaml"):
        with (home / name).open("a", encoding="utf-8") as file:
            file.write("# one more,tech\n")
        versions.add(task.full_version())
    assert len(versions) == 4


def test_a_folder_that_moves_keeps_its_trials_and_the_ledger_learns_where(home: Path, tmp_path: Path) -> None:
    made = sweep.load(home / "my.yaml")
    before = Ledger.create(tmp_path / "out", matrix.plan(made), made.to_yaml())
    home.rename(tmp_path / "moved")
    again = sweep.load(tmp_path / "moved" / "my.yaml")
    after = Ledger.create(tmp_path / "out", matrix.plan(again), again.to_yaml())
    assert [row.trial_id for row in after.plan.rows] == [row.trial_id for row in before.plan.rows]
    for row in after.plan.rows:
        document = json.loads((after.trial_dir(row.trial_id) / TRIAL_FILE).read_text())
        assert document["row"]["trial"]["paths"] == {
            "model": str(tmp_path / "moved" / "model"),
            "task": str(tmp_path / "moved" / "tickets.yaml"),
        }
    assert Ledger.open(tmp_path / "out").plan.rows == after.plan.rows


def test_the_ledgers_sweep_can_be_planned_again(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_sweep(
        home,
        models=["./model", "smollm2-135m"],
        overrides=[{"match": {"task": ["tickets.yaml"]}, "budget": {"epochs": 2}}],
        exclude=[{"model": "./model", "method": "lora"}],
    )
    made = sweep.load("home/my.yaml")
    copy = tmp_path / "out" / "sweep.yaml"
    copy.parent.mkdir()
    copy.write_text(made.to_yaml(), encoding="utf-8")
    assert sweep.load(copy).models == [str(home / "model"), "smollm2-135m"]
    monkeypatch.chdir("/")
    planned = matrix.plan(sweep.load(copy))
    assert [row.trial_id for row in planned.rows] == ids(home / "my.yaml")
    assert {row.trial.budget.epochs for row in planned.rows} == {2}
    assert [count for _, count in planned.excluded] == [1]


NAMES = pytest.mark.parametrize(
    ("model", "task"),
    [
        ("model", "tickets"),
        ("./model", "tickets.yaml"),
        ("model/", "./tickets.yaml"),
        ("{home}/model", "{home}/tickets.yaml"),
    ],
)


@NAMES
def test_filters_match_by_name_and_by_path(home: Path, model: str, task: str) -> None:
    model, task = model.format(home=home), task.format(home=home)
    path = write_sweep(
        home,
        models=["./model", "smollm2-135m"],
        tasks=["tickets.yaml", "trec"],
        overrides=[{"match": {"model": model, "task": [task]}, "budget": {"epochs": 3}}],
        exclude=[{"model": [model], "task": "trec"}, {"task": task, "model": "smollm2-135m", "method": "lora"}],
    )
    made = plan_of(path)
    cells = {(r.trial.model, r.trial.task, r.trial.method, r.trial.budget.epochs) for r in made.rows}
    assert cells == {
        ("model", "tickets", "baseline", 3),
        ("model", "tickets", "lora", 3),
        ("smollm2-135m", "tickets", "baseline", 1),
        ("smollm2-135m", "trec", "baseline", 1),
        ("smollm2-135m", "trec", "lora", 1),
    }
    assert [count for _, count in made.excluded] == [2, 1]
    chosen = made.matching({"model": [model], "task": [task]})
    assert {(made.by_id[i].trial.model, made.by_id[i].trial.task) for i in chosen} == {("model", "tickets")}
    assert len(chosen) == 2


def test_the_sweep_of_the_documentation_is_one(home: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "own_data.md").read_text(encoding="utf-8")
    block = next(b for text in page.split("```yaml\n")[1:] if "name: my\n" in (b := text.split("```")[0]))
    (home / "my.yaml").write_text(block, encoding="utf-8")
    found = [(row.trial.model, row.trial.method, row.trial.learning_rate) for row in plan_of(home / "my.yaml").rows]
    assert sorted(found, key=str) == [
        ("model", "lora", 0.0001),
        ("model", "lora", 0.0005),
        ("smollm2-135m", "baseline", None),
        ("smollm2-135m", "lora", 0.0001),
        ("smollm2-135m", "lora", 0.0005),
    ]


def test_a_path_in_a_filter_that_is_none_of_the_sweeps_is_told(home: Path) -> None:
    path = write_sweep(home, exclude=[{"task": "ticket.yaml"}])
    with pytest.raises(InputError, match=r"exclude\.0\.task: unknown name 'ticket\.yaml'; did you mean 'tickets"):
        plan_of(path)


def test_two_of_the_same_name_are_told_unless_they_are_the_same(home: Path) -> None:
    write_model(home / "old" / "model", b"other weights")
    with pytest.raises(InputError) as error:
        plan_of(home / "my.yaml", "models=[./model, old/model]")
    assert str(error.value) == (
        f"{home}/my.yaml: models: {home}/model and {home}/old/model would both be called 'model'; "
        "rename one of the folders"
    )
    write_task(home / "b" / "tickets.yaml", cell="other")
    with pytest.raises(InputError) as error:
        plan_of(home / "my.yaml", "tasks=[tickets.yaml, b/tickets.yaml]")
    assert str(error.value) == (
        f"{home}/my.yaml: tasks: {home}/tickets.yaml and {home}/b/tickets.yaml would both be called 'tickets'; "
        "give one of them another 'name'"
    )
    write_task(home / "c" / "trec.yaml", text=TASK.replace("tickets\n", "trec\n"))
    with pytest.raises(InputError, match=r"the task that comes along and .*c/trec\.yaml would both be called 'trec'"):
        plan_of(home / "my.yaml", "tasks=[trec, c/trec.yaml]")
    write_task(home / "d" / "tickets.yaml")
    same = plan_of(home / "my.yaml", "tasks=[tickets.yaml, d/tickets.yaml, ./tickets.yaml]")
    assert (len(same.rows), same.duplicates) == (2, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("tasks=[none.yaml]", "tasks: task: 'none.yaml': there is no file {home}/none.yaml, nor {cwd}/none.yaml"),
        (
            "models=[./none]",
            "models: model: './none' is not the name of a known model, and there is no folder {home}/none, "
            "nor {cwd}/none",
        ),
        ("models=[./empty]", "models: model: {home}/empty is not a folder with a config.json"),
        ("tasks=[lost.yaml]", "tasks: fetch: {home}/lost.csv does not exist"),
    ],
)
def test_a_path_that_leads_nowhere_is_told_in_one_line(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, message: str
) -> None:
    (home / "empty").mkdir()
    (home / "lost.yaml").write_text(TASK.replace("tickets.csv", "lost.csv"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        plan_of("home/my.yaml", change)
    assert message.format(home=home, cwd=tmp_path) in str(error.value)
    assert "home/my.yaml" in str(error.value) and "\n" not in str(error.value)


def test_paths_are_kept_and_are_no_part_of_the_identity() -> None:
    fields: dict[str, Any] = {"notebook": "n", "method": "m", "objective": "o", "model": "x", "task": "t"}
    trial = Trial(**fields)
    placed = Trial(**fields, paths={"model": "/a/x"})
    assert placed.trial_id == trial.trial_id
    assert Trial.from_json(placed.model_dump_json()) == placed
    assert Trial.from_json(placed.canonical_json()) == trial
    assert (placed.address("model"), placed.address("task"), trial.address("model")) == ("/a/x", "t", "x")
    others = [Trial(**fields, model_revision="r"), Trial(**fields, task_version="1")]
    assert len({trial.trial_id, *(other.trial_id for other in others)}) == 3


def test_revisions_and_versions_of_what_comes_along() -> None:
    found = {name: load_model(name).revision() for name in REVISIONS}
    assert found == REVISIONS
    assert load_task("trec").full_version() == "1"
    assert load_task("trec").address == "trec"


REVISIONS = {
    "smollm2-135m": "bcc81830d10c",
    "gemma3-270m": "a5fd3b62230a",
    "smollm2-135m-base": "93efa2f097d58c2a74874c7e644dbc9b0cee75a2",
    "pythia-70m@step1000": "step1000",
    "smollm2-135m@random": None,
}


def test_a_large_file_is_hashed_once_until_it_changes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(own_files, "sha256", lambda path: hashed.append(path.name) or sha256(path))
    monkeypatch.setattr(own_files, "_WORTH_KEEPING_BYTES", 1000)
    write_model(home / "model", b"w" * 1000)
    first = load_model(str(home / "model")).revision()
    assert load_model(str(home / "model")).revision() == first
    assert hashed.count("model.safetensors") == 1
    write_model(home / "model", b"w" * 999 + b"xy")
    assert load_model(str(home / "model")).revision() != first
    assert hashed.count("model.safetensors") == 2


def test_the_estimate_finds_own_files(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    setting = Setting.of(plan_of("home/my.yaml").rows[1].trial)
    assert setting is not None
    assert (setting.model, setting.labels) == (str(home / "model"), 3)


def test_the_processes_that_train_together_are_given_paths(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order names what every process finds from its own folder."""
    from types import SimpleNamespace

    orders: list[dict[str, Any]] = []

    def read_order(folder: Path, *_: Any) -> None:
        orders.append(json.loads((folder / launch.ORDER_FILE).read_text()))
        raise InterruptedError

    monkeypatch.setattr(launch, "_run", read_order)
    base = SimpleNamespace(
        spec=load_model(str(home / "model")),
        labels=None,
        scalar=False,
        number_format="float32",
        device=SimpleNamespace(type="cpu"),
    )
    network = SimpleNamespace(to=lambda device: None)
    start = SimpleNamespace(base=base, model=network, save=lambda folder: None)
    budget = SimpleNamespace(batch_size=4, model_dump=dict)
    settings = SimpleNamespace(budget=budget, seed=0, learning_rate=1e-3)
    with pytest.raises(InterruptedError):
        launch.fit("sft", start, load_task(str(home / "tickets.yaml")).address, settings, {}, 2)  # type: ignore[arg-type]
    assert [(order["model"], order["task"]) for order in orders] == [(str(home / "model"), str(home / "tickets.yaml"))]


# --- as a user does it -----------------------------------------------------------------------------------------------


def real_model(folder: Path) -> None:
    """A byte-level Llama of two layers with its tokenizer, as ``save_pretrained`` leaves it."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={t: n for n, t in enumerate(["<pad>", "</s>", *letters])}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = {"eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=len(letters) + 2, max_position_embeddings=256, **shape, **ends)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tunebench(folder: Path, *words: str) -> str:
    import subprocess
    import sys

    command = [sys.executable, "-m", "harness.cli", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_own_files_from_the_command_line(home: Path, tmp_path: Path) -> None:
    shutil.rmtree(home / "model")
    real_model(home / "model")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    planned = json.loads(tunebench(elsewhere, "plan", "../home/my.yaml", "--json"))["trials"]
    assert [row["estimated_bytes"] is None for row in planned] == [True, False], "lora is estimated"
    tunebench(elsewhere, "run", "../home/my.yaml", "--out", "out")
    trials = tables.read(elsewhere / "out")["trials"]
    assert dict(zip(trials.method, trials.status, strict=True)) == {"baseline": "ok", "lora": "ok"}
    assert list(trials.trial_id) == [row["trial_id"] for row in planned]
    assert set(trials.model) == {"model"} and set(trials.task) == {"tickets"}
    assert dict(zip(trials.method, trials.train_steps, strict=True)) == {"baseline": 0, "lora": 2}
    assert tunebench(elsewhere, "status", "out").split() == ["status", "trials", "ok", "2"]
    assert "trials.parquet: 2 rows" in tunebench(elsewhere, "tables", "out")
    tunebench(elsewhere, "report", "out", "--out", "page")
    page = (elsewhere / "page" / "index.html").read_text()
    assert "tickets" in page
    assert "nothing to do" in tunebench(elsewhere, "run", "out/sweep.yaml", "--out", "out")


@pytest.mark.long
def test_own_files_reach_the_processes_that_train_together(home: Path, tmp_path: Path) -> None:
    shutil.rmtree(home / "model")
    real_model(home / "model")
    together = ["--set", "resources.processes=2", "--only", "method=lora,task=tickets.yaml,model=./model"]
    tunebench(tmp_path, "run", "home/my.yaml", "--out", "out", *together)
    (row,) = tables.read(tmp_path / "out")["trials"].itertuples()
    assert (row.status, row.model, row.task, row.train_steps) == ("ok", "model", "tickets", 2)
    assert "trained by 2 processes" in row.note
