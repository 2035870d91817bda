"""A method of a user's own in a sweep: a Python file by its path, read without running it."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from helpers import own_methods as own

from harness import arguments, catalog
from harness.errors import InputError
from harness.estimate.planned import Setting
from harness.files import sha256
from harness.results import tables
from harness.results.record import Record
from harness.runner.trial import _check_method
from harness.sweeps import expand, spec
from harness.sweeps.plan import Plan
from harness.trial import Trial


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    own.write(folder)
    own.write_sweep(folder)
    return folder


def plan_of(path: Path | str, *overrides: str) -> Plan:
    return expand.plan(spec.load(path, overrides))


def trials(path: Path | str, *overrides: str) -> list[Trial]:
    return [row.trial for row in plan_of(path, *overrides).rows]


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as told:
        plan_of(path, *overrides)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_a_trial_names_it_by_its_file_and_holds_its_path_its_content_and_its_arguments(home: Path) -> None:
    (trial,) = trials(home / "mine.yaml")
    assert (trial.method, trial.notebook) == ("own:norms", "methods/own")
    assert trial.method_args == {"layer_types": "norm", "tensors": "all", "times": 1, "sizes": [1, 2]}
    assert trial.paths["method"] == str(home / "norms.py") == trial.address("method")
    assert trial.method_version == sha256(home / "norms.py")[:12]


def test_it_is_the_same_trial_from_every_folder_and_another_with_another_content(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = trials(home / "mine.yaml")
    monkeypatch.chdir(tmp_path)
    assert trials("home/mine.yaml") == [expected]
    assert trials("home/mine.yaml", "methods={home/norms.py: {learning_rate: 1e-3}}") == [expected]
    moved = shutil.copytree(home, tmp_path / "moved")
    (there,) = trials(moved / "mine.yaml")
    assert there.trial_id == expected.trial_id and there.address("method") == str(moved / "norms.py")
    own.write(moved, own.NORMS + "# changed\n")
    assert trials(moved / "mine.yaml")[0].trial_id != expected.trial_id


def test_what_was_added_to_a_trial_changes_no_id_of_the_package_s_methods() -> None:
    trial = Trial(notebook="methods/lora", method="lora", objective="sft", model="m", task="t")
    assert "method_version" not in json.loads(trial.canonical_json())


def test_a_sweep_written_out_plans_the_same_trials_from_anywhere(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.write_sweep(
        home,
        methods={"baseline": {}, "./norms.py": {"learning_rate": [1e-3, 1e-2]}},
        overrides=[{"match": {"task": "trec"}, "methods": {"norms.py": {"times": 3}}}],
        exclude=[{"method": "./norms.py", "learning_rate": 1e-2}],
    )
    plan = plan_of(home / "mine.yaml")
    assert [(row.trial.method, row.trial.learning_rate) for row in plan.rows] == [
        ("baseline", None),
        ("own:norms", 1e-3),
    ]
    assert plan.rows[1].trial.method_args["times"] == 3
    assert plan.excluded == (({"method": "./norms.py", "learning_rate": 1e-2}, 1),)
    assert plan.matching({"method": [str(home / "norms.py")]}) == {plan.rows[1].trial_id}
    assert plan.matching({"method": ["own:norms"]}) == {plan.rows[1].trial_id}
    (tmp_path / "out.yaml").write_text(spec.load(home / "mine.yaml").to_yaml())
    monkeypatch.chdir(tmp_path)
    assert trials("out.yaml") == [row.trial for row in plan.rows]


def test_lists_are_axes_unless_the_default_is_one(home: Path) -> None:
    given = "methods={norms.py: {learning_rate: 1.0e-3, times: [1, 2], sizes: [3, 4]}}"
    assert [t.method_args["times"] for t in trials(home / "mine.yaml", given)] == [1, 2]
    assert trials(home / "mine.yaml", given)[0].method_args["sizes"] == [3, 4]


def test_an_objective_s_notebook_runs_it_and_plans_its_parents(home: Path) -> None:
    rows = trials(home / "mine.yaml", "models=[smollm2-135m]", "tasks=[hh_harmless]", "objectives=[dpo]")
    assert {(t.method, t.objective, t.notebook) for t in rows} == {
        ("own:norms", "sft", "methods/own"),
        ("own:norms", "reward", "objectives/reward"),
        ("own:norms", "dpo", "objectives/dpo"),
    }
    assert {t.method_version for t in rows} == {sha256(home / "norms.py")[:12]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def aply(base): ...", "a method needs a function 'def apply(base, ...)'"),
        ("def apply(): ...", "a method needs a function 'def apply(base, ...)'"),
        ("def apply(base=1): ...", "a method needs a function 'def apply(base, ...)'"),
        ("def apply(base, r", "line 1 is not Python: '(' was never closed"),
        ("def apply(base, r): ...", "argument 'r' has no default; give it one, such as r=8"),
        ("def apply(base, *, r): ...", "argument 'r' has no default"),
        ("def apply(base, **rest): ...", "'*rest' cannot be checked; name each argument"),
        ("def apply(base, seed=0): ...", "argument 'seed' has a name that every trial uses"),
        ("def apply(base, method_args=0): ...", "argument 'method_args' has a name that every trial uses"),
        ("def apply(base, r=list()): ...", "argument 'r': its default is nothing that YAML can write"),
        ("def apply(base, r={1}): ...", "argument 'r': its default is nothing that YAML can write"),
        ("def apply(base, r: int = 'x'): ...", "argument 'r': must be a whole number (given: 'x')"),
        ("def apply(base, r=2, /): ...", "apply: arguments are given by name; move '/' in front of 'r'"),
        ("def apply(base, train_examples=3): ...", "argument 'train_examples' has a name that every trial uses"),
        ("def apply(base, parent=3): ...", "argument 'parent' has a name that every trial uses"),
    ],
)
def test_a_file_that_is_no_method_is_one_line(home: Path, text: str, message: str) -> None:
    own.write(home, text)
    assert f"mine.yaml: methods: {home / 'norms.py'}: " in (said := refused(home / "mine.yaml")) and message in said


def test_an_argument_of_the_objective_s_name_is_refused_and_not_dropped(home: Path) -> None:
    own.write(home, "def apply(base, beta: float = 1.0): ...")
    alone = ("models=[smollm2-135m]", "tasks=[factual_preference]")
    assert "methods.own:norms: its argument 'beta' is one of objective 'dpo' too" in refused(
        home / "mine.yaml", *alone, "objectives=[dpo]"
    )
    assert trials(home / "mine.yaml", *alone, "objectives=[sft]")[0].method_args == {"beta": 1.0}


def test_the_last_of_two_functions_counts_as_in_python(home: Path) -> None:
    own.write(home, "def apply(base, r=1): ...\ndef apply(base, k=2): ...")
    assert trials(home / "mine.yaml")[0].method_args == {"k": 2}


def test_the_command_line_sets_what_stands_under_a_path(home: Path) -> None:
    (trial,) = trials(home / "mine.yaml", "methods../norms.py.learning_rate=0.5", "methods../norms.py.times=3")
    assert (trial.learning_rate, trial.method_args["times"]) == (0.5, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("norms.py: {rank: 4}", "methods.own:norms: unknown name 'rank'"),
        ("norms.py: {times: 0}", "methods.own:norms.times: must be at least 1 (given: 0)"),
        ("norms.py: {tensors: wieght}", "methods.own:norms.tensors: unknown name 'wieght'; did you mean 'weight'?"),
        ("norms.py: {sizes: 3}", "methods.own:norms.sizes: must be a list"),
        ("norms.py: {train_steps: 3}", "methods.own:norms: unknown name 'train_steps'"),
        ("none.py: {}", "methods: method: there is no file"),
        ("my-1.5.py: {}", "methods: 'my-1.5.py': a method is called like its file"),
        ("norms.py: {}, other/norms.py: {}", "methods: 'own:norms' is the name of"),
        ("norms.py: {}, ./norms.py: {}", "methods: 'own:norms' is given twice"),
        ("norm.yaml: {}", "methods: unknown name 'norm.yaml'"),
    ],
)
def test_what_a_sweep_gives_it_is_checked_before_it_runs(home: Path, given: str, message: str) -> None:
    own.write(home / "other")
    assert message in refused(home / "mine.yaml", f"methods={{{given}}}")


def test_planning_does_not_run_the_file(home: Path) -> None:
    own.write(home, f"open({str(home / 'ran')!r}, 'w')\n{own.NORMS}")
    assert len(trials(home / "mine.yaml")) == 1
    assert not (home / "ran").exists()


def test_a_type_that_the_file_imports_leaves_the_default_s_type(home: Path) -> None:
    own.write(home, "import mine\ndef apply(base, r: mine.Rank = 8, s=0.5): ...")
    assert arguments.own(str(home / "norms.py"))["r"] == arguments.Argument(8)
    assert "r: must be a whole number, like the notebook's default 8" in refused(
        home / "mine.yaml", "methods={norms.py: {r: x}}"
    )
    assert trials(home / "mine.yaml", "methods={norms.py: {s: 2}}")[0].method_args == {"r": 8, "s": 2.0}


def test_its_estimate_follows_the_file(home: Path) -> None:
    (trial,) = trials(home / "mine.yaml")
    setting = Setting.of(trial)
    assert setting is not None and setting.method == str(home / "norms.py")
    first = setting.key()
    own.write(home, own.NORMS + "# changed\n")
    changed = Setting.of(trials(home / "mine.yaml")[0])
    assert changed is not None and changed.key() != first


def test_a_trial_runs_the_file_that_was_planned_or_none(home: Path) -> None:
    (trial,) = trials(home / "mine.yaml")
    _check_method(trial)
    own.write(home, own.NORMS + "# changed\n")
    with pytest.raises(InputError, match="has changed since this trial was planned"):
        _check_method(trial)
    (home / "norms.py").unlink()
    with pytest.raises(InputError, match="there is no file"):
        _check_method(trial)


def test_its_version_is_a_column(home: Path) -> None:
    (trial,) = trials(home / "mine.yaml")
    when = datetime(2026, 1, 1, tzinfo=UTC)
    record = Record(trial_id=trial.trial_id, sweep="mine", trial=trial, status="ok", started_at=when)
    row = tables._row(record)
    assert (row["method"], row["method_version"]) == ("own:norms", trial.method_version)


def test_a_name_of_the_package_stays_one() -> None:
    assert catalog.method_of_row("lora") is catalog.METHODS["lora"]
    assert catalog.method_of_row("own:x").name == catalog.method("a/x.py").name == "own:x"
    with pytest.raises(InputError, match="unknown name 'own:x'"):
        catalog.method("own:x")
