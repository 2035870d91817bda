"""Estimates in a plan: asked once, kept while nothing changes, and held against the memory that there is."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml
from helpers import own_methods
from helpers import tiny_models as tiny

from harness import cli
from harness.errors import InputError
from harness.estimate import limit, planned
from harness.estimate.limit import MemoryLimit
from harness.estimate.planned import Setting
from harness.ledger.ledger import Ledger
from harness.sweeps import expand as matrix
from harness.sweeps import spec as sweep
from harness.sweeps.plan import Plan, Planned

GB = 10**9
METHODS = {"full": {"learning_rate": [1e-5, 2e-5]}, "lora": {"r": [4, 8], "learning_rate": [1e-5, 2e-5]}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Plan]:
    """The plan of a sweep with these fields, by the real notebooks."""

    def of(**fields: object) -> Plan:
        document = {"name": "s", "models": ["tiny-llama"], "tasks": ["factual_summary"], "methods": METHODS, **fields}
        path = tmp_path / "s.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return matrix.plan(sweep.load(path))

    return of


class Stub:
    """An estimator that says ``size`` and remembers what it was asked."""

    def __init__(self, size: int | str | None = 2 * GB) -> None:
        self.size = size
        self.asked: list[Setting] = []

    def __call__(self, settings: list[Setting], watch: planned.Watch) -> dict[Setting, planned.Peak]:
        self.asked += settings
        answer = planned.Step(self.size, 1) if isinstance(self.size, int) else self.size
        return {setting: answer if setting.has_step or isinstance(answer, str) else None for setting in settings}


def at(size: int) -> planned.LimitOf:
    return lambda device: MemoryLimit(f"device {device}", size)


def row_of(plan: Plan, method: str) -> Planned:
    return next(row for row in plan.rows if row.trial.method == method)


def test_rows_that_share_a_setting_are_estimated_once_and_the_next_plan_asks_for_nothing(
    made: Callable[..., Plan],
) -> None:
    plan, stub = made(seeds=[0, 1, 2]), Stub()
    judged = planned.judge(plan, at(4 * GB), stub)
    assert len(plan.rows) == 18
    assert sorted((s.method, json.loads(s.method_args).get("r")) for s in stub.asked) == [
        ("full", None),
        ("lora", 4),
        ("lora", 8),
    ]
    assert {row.estimated_bytes for row in judged.rows} == {2 * GB}
    again = Stub(size=1)
    assert planned.judge(plan, at(4 * GB), again) == judged
    assert again.asked == []


def test_a_row_has_what_its_step_does(made: Callable[..., Plan]) -> None:
    def estimator(settings: list[Setting], watch: planned.Watch) -> dict[Setting, planned.Peak]:
        return dict.fromkeys(settings, planned.Step(7, 5, 3, 2))

    for row in (*planned.judge(made(), at(GB), estimator).rows, *planned.judge(made(), at(GB), Stub()).rows):
        assert (row.estimated_bytes, row.estimated_flops, row.updated_params, row.unpacked_params) == (7, 5, 3, 2)


@pytest.mark.parametrize(("size", "skipped"), [(2 * GB, 0), (2 * GB - 1, 6)])
def test_what_does_not_fit_is_skipped_with_the_estimate_and_the_limit(
    made: Callable[..., Plan], size: int, skipped: int
) -> None:
    judged = planned.judge(made(), at(size), Stub())
    assert (len(judged.skipped), len(judged.runnable)) == (skipped, 6 - skipped)
    for row in judged.skipped:
        assert row.reason == (
            "a step of 8 x 128 tokens is estimated to need 2 GB, more than the 2 GB of device auto; "
            "--force runs it all the same"
        )


def test_a_trial_whose_parent_does_not_fit_is_skipped_too(made: Callable[..., Plan]) -> None:
    def full_is_large(settings: list[Setting], watch: planned.Watch) -> dict[Setting, planned.Peak]:
        return {setting: planned.Step(9 * GB if setting.method == "full" else GB, 1) for setting in settings}

    methods = {"bitdelta": {}, "full": {"learning_rate": 1e-5}, "lora": {}}
    judged = planned.judge(made(methods=methods), at(4 * GB), full_is_large)
    full, child, other = (row_of(judged, method) for method in ("full", "bitdelta", "lora"))
    assert full.reason is not None and full.reason.startswith("a step of")
    assert child.reason == f"its parent (full, trial {full.trial_id}) is skipped"
    assert other.reason is None


def test_what_has_no_step_to_estimate_is_not_skipped_for_its_size(made: Callable[..., Plan]) -> None:
    methods = {"baseline": {}, "qlora": {"optimizer": "paged_adamw_32bit"}, "full": {}}
    stub = Stub()
    plan = made(tasks=["factual_preference"], methods=methods, objectives=["sft", "dpo", "ppo"])
    judged = planned.judge(plan, at(1), stub)
    asked = [row for row in plan.runnable if row.trial.objective == "sft" and row.trial.method == "full"]
    assert [setting.method for setting in stub.asked if setting.has_step] == ["full"]
    rest = {(setting.method, setting.scalar) for setting in stub.asked if not setting.has_step}
    # Of the others it is asked whether the model takes the arguments; the reward model is one for all methods.
    assert rest == {("qlora", False), ("full", False), ("full", True)}
    estimated = {row.trial_id for row in judged.rows if row.estimated_bytes is not None}
    assert asked and estimated == {row.trial_id for row in asked}
    alone = planned.judge(made(methods={"baseline": {}}), at(1), stub)
    assert not alone.skipped and alone.rows


def test_an_estimator_that_knows_nothing_skips_nothing(made: Callable[..., Plan]) -> None:
    judged = planned.judge(made(), at(1), Stub(size=None))
    assert not judged.skipped
    assert {row.estimated_bytes for row in judged.rows} == {None}


@pytest.mark.parametrize(("size", "is_kept"), [(GB, True), ("no package", False), (None, False)])
def test_what_a_file_of_one_s_own_refused_is_asked_again(
    made: Callable[..., Plan], tmp_path: Path, size: int | str | None, is_kept: bool
) -> None:
    own_methods.write(tmp_path)
    plan = made(methods={"./norms.py": {"learning_rate": 1e-3}})
    with contextlib.suppress(InputError):  # of a sweep whose only trial is refused
        planned.judge(plan, at(2 * GB), Stub(size))
    again = Stub()
    planned.judge(plan, at(2 * GB), again)
    assert (again.asked == []) == is_kept


def test_an_impossible_row_keeps_its_own_reason(made: Callable[..., Plan]) -> None:
    plan = made(methods={"full": {}}, objectives=["classification"])
    judged = planned.judge(plan, at(1), Stub())
    assert judged == plan


def test_a_changed_method_is_estimated_anew(made: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    plan, stub = made(), Stub()
    planned.judge(plan, at(GB), stub)
    monkeypatch.setattr(planned, "_code", lambda: ["another version"])
    planned.judge(plan, at(GB), stub)
    assert len(stub.asked) == 2 * len(set(stub.asked)) == 6


def test_a_broken_file_in_the_cache_is_made_again(made: Callable[..., Plan], cache: Path) -> None:
    plan, stub = made(), Stub()
    first = planned.judge(plan, at(GB), stub)
    for file in (cache / "estimates").glob("*.json"):
        file.write_text("{", encoding="utf-8")
    assert planned.judge(plan, at(GB), stub) == first
    assert len(stub.asked) == 6


def test_a_process_that_dies_leaves_no_estimate_behind(
    made: Callable[..., Plan], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    judged = planned.judge(made(), at(1))
    assert not judged.skipped
    assert not list(cache.rglob("*.json"))


def worker(path: Path, *lines: str) -> str:
    """A program that stands for the interpreter and whatever it is told to run: it prints ``lines`` and fails."""
    path.write_text("#!/bin/sh\n" + "".join(f"echo {line}\n" for line in lines) + "exit 1\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_a_watch_hears_of_each_setting_and_what_was_traced_before_a_process_died_stays(
    made: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", worker(tmp_path / "python", "[5000, 7]", "null"))
    heard: list[tuple[int, int]] = []
    judged = planned.judge(made(), at(GB), watch=lambda estimated, of: heard.append((estimated, of)))
    assert heard == [(0, 3), (1, 3), (2, 3)]
    estimated = {json.loads(Setting.of(row.trial).method_args).get("r"): row.estimated_bytes for row in judged.rows}  # type: ignore[union-attr]
    assert estimated == {None: 5000, 4: None, 8: None}
    heard.clear()
    planned.judge(made(), at(GB), Stub(), lambda estimated, of: heard.append((estimated, of)))
    assert heard == [(0, 1)], "only the one that died is asked again"
    planned.judge(made(), at(GB), Stub(), lambda estimated, of: heard.append((estimated, of)))
    assert heard == [(0, 1)], "nothing is told when nothing lacks"


def steps(act: str, settings: str, processors: int) -> list[str]:
    """The command line of a program that answers ``settings`` as the worker does, with ``act`` in place of a trace."""
    program = f"import os, time\nfrom harness.estimate import worker\nworker.processor_count = lambda: {processors}\n"
    program += f"worker.step_of = {act}\nprint(list(worker._steps({settings})))"
    return [sys.executable, "-c", program]


@pytest.mark.parametrize(
    ("act", "processors"), [("abs", 2), ("abs", 1), ("lambda number: abs(number)  # no other process takes it", 1)]
)
def test_forks_answer_in_the_order_of_the_settings(act: str, processors: int) -> None:
    command = steps(act, "[3, -1, 2]", processors)
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[3, 1, 2]\n"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends a process with its parent")
def test_no_fork_outlives_the_process_that_estimates() -> None:
    with subprocess.Popen(steps("time.sleep", "[600, 600, 600]", 2)) as process:
        forks: list[psutil.Process] = []
        while len(forks) < 2:
            forks = psutil.Process(process.pid).children()
            assert process.poll() is None
        process.kill()
    assert psutil.wait_procs(forks, timeout=60)[1] == []


@pytest.mark.slow
def test_the_process_traces_what_can_be_traced_and_says_why_for_the_rest(made: Callable[..., Plan]) -> None:
    from harness.estimate.estimate import estimate

    # An argument of the notebook alone, a method that the model refuses, and one that is as the estimate says.
    (setting,) = {Setting.of(row.trial) for row in made(methods={"lora": {"r": 4}}).rows}
    assert setting is not None
    drawn = dataclasses.replace(setting, method_args=json.dumps({"r": 4, "picture": True}))
    refused = dataclasses.replace(setting, method="llama_adapter", method_args="{}", model="tiny-bert")
    found = planned._in_processes([setting, drawn, refused])
    arguments = {"batch_size": 8, "length": 128, "dtype": "float32", "optimizer_dtype": None}
    step = estimate("tiny-llama", "lora", {"r": 4}, **arguments)  # type: ignore[arg-type]
    size = planned.Step(step.total_bytes, step.flops, step.trainable_params)
    # The notebook's other arguments stand at their defaults, which are the method's.
    assert str(found.pop(refused)).startswith("llama_adapter: PEFT's ADAPTION_PROMPT on bert: ")
    assert found == {setting: size, drawn: size}


def test_limits_of_the_command_line() -> None:
    assert planned.limits() is limit.limit_of
    assert planned.limits("24GB")("cuda") == MemoryLimit("--memory", 24 * GB)
    assert planned.limits("24GB", elsewhere=True)("cuda") == MemoryLimit("--memory", 24 * GB)
    assert planned.limits("24GB", force=True)("cpu") is None
    assert planned.limits(elsewhere=True)("cpu") is None
    with pytest.raises(InputError, match="--memory: '24' is not a size"):
        planned.limits("24")


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def test_the_smallest_limit_of_the_own_and_outer_control_groups_counts(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc": "0::/user/job/step\n4:memory:/pod\n3:cpuset:/\n",
            "fs/user/job/step/memory.max": "max\n",
            "fs/user/job/memory.max": "3000\n",
            "fs/user/memory.max": "5000\n",
            "fs/memory/pod/memory.limit_in_bytes": "4000\n",
            "fs/other/memory.max": "1\n",
        },
    )
    assert sorted(limit._cgroup_limits(tmp_path / "proc", tmp_path / "fs")) == [3000, 4000, 5000]
    assert list(limit._cgroup_limits(tmp_path / "nowhere", tmp_path / "fs")) == []


def test_a_container_has_what_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "_cgroup_limits", lambda: iter([12345, 99]))
    assert limit.limit_of("cpu") == MemoryLimit("this container", 99)
    monkeypatch.setattr(limit, "_cgroup_limits", lambda: iter([2**63]))
    machine = limit.limit_of("cpu")
    assert machine is not None and machine.place == "this machine" and machine.bytes > GB


def test_without_a_device_file_torch_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "_accelerator_possible", lambda: False)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert limit.limit_of("auto") == limit.limit_of("cpu")
    assert limit.limit_of("cuda:0") is None


@pytest.mark.slow
def test_plan_run_and_force_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.bench(tmp_path, methods={"full": {}})
    monkeypatch.setenv("TUNEBENCH_NOTEBOOKS", str(tmp_path / "notebooks"))
    monkeypatch.setattr(planned, "_in_processes", Stub())

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["tunebench", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert exit_.value.code == 0
        return capsys.readouterr().out

    (row,) = json.loads(call("plan", "tiny.yaml", "--memory", "1GB", "--json"))["trials"]
    assert (row["status"], row["estimated_bytes"]) == ("skipped", 2 * GB)
    assert "estimated to need 2 GB, more than the 1 GB of --memory" in row["reason"]
    assert "1 to run, 0 skipped" in call("plan", "tiny.yaml", "--memory", "1GB", "--force")

    call("run", "tiny.yaml", "--memory", "1GB")
    (record,) = Ledger.open(tmp_path / "results" / "tiny").records()
    assert (record.status, record.reason) == ("skipped", row["reason"])
    call("run", "tiny.yaml", "--memory", "1GB", "--force")
    ledger = Ledger.open(tmp_path / "results" / "tiny")
    (record,) = ledger.records()
    assert record.status == "ok"
    assert ledger.plan.rows[0].estimated_bytes == 2 * GB


def test_a_model_that_cannot_take_the_arguments_is_a_skipped_row_with_the_reason(made: Callable[..., Plan]) -> None:
    def refuses_rank_8(settings: list[Setting], watch: planned.Watch) -> dict[Setting, planned.Peak]:
        fits = planned.Step(GB, 1)
        return {setting: "lora: too much" if '"r": 8' in setting.method_args else fits for setting in settings}

    judged = planned.judge(made(), at(100 * GB), refuses_rank_8)
    assert {row.trial.method_args.get("r"): row.reason for row in judged.rows} == {
        None: None,
        4: None,
        8: "lora: too much",
    }
    assert [row.estimated_bytes for row in judged.skipped] == [None, None]


@pytest.mark.parametrize("objective", ["dpo", "orpo", "reward", "ppo"])
def test_arguments_that_the_model_does_not_take_are_told_whatever_the_objective(
    made: Callable[..., Plan], objective: str
) -> None:
    def refuses(settings: list[Setting], watch: planned.Watch) -> dict[Setting, planned.Peak]:
        return dict.fromkeys(settings, "full_top_k.k: 100 is not between 1 and the model's 2 layers")

    methods = {"full_top_k": {"k": 100, "learning_rate": 1e-3}}
    plan = made(tasks=["factual_preference"], methods=methods, objectives=[objective])
    with pytest.raises(InputError, match=r"^no trial of the sweep can run: full_top_k\.k: 100 is not between"):
        planned.judge(plan, at(100 * GB), refuses)


@pytest.mark.parametrize("scalar", [False, True])
@pytest.mark.parametrize(("k", "says"), [(1, None), (100, "full_top_k.k: 100 is not between 1 and the model's")])
def test_the_worker_applies_a_method_whose_step_it_does_not_trace(scalar: bool, k: int, says: str | None) -> None:
    from harness.estimate.worker import step_of

    setting = Setting("tiny-llama", "full_top_k", json.dumps({"k": k}), 8, 64, "float32", 2, "{}", None, False, scalar)
    answer = step_of(dataclasses.asdict(setting))
    assert (answer is None) == (says is None)
    assert says is None or str(answer).startswith(says)


def test_a_head_of_one_number_is_what_a_reward_model_is_asked_with(
    made: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.estimate import estimate as estimates
    from harness.estimate.worker import step_of

    asked: list[bool] = []
    monkeypatch.setattr(estimates, "_apply", lambda method, base, args: asked.append(base.scalar))
    for objective in ("reward", "dpo"):
        methods = {"lora": {"learning_rate": 1e-3}}
        rows = made(tasks=["factual_preference"], methods=methods, objectives=[objective]).rows
        (row,) = [row for row in rows if row.trial.objective == objective and row.trial.method == "lora"]
        setting = Setting.of(row.trial)
        assert setting is not None and not setting.has_step
        assert step_of(dataclasses.asdict(setting)) is None
    assert asked == [True, False]


def test_a_sweep_of_which_nothing_can_run_is_refused(made: Callable[..., Plan]) -> None:
    with pytest.raises(InputError, match=r"^no trial of the sweep can run: lora: Target modules nope not found$"):
        planned.judge(made(), at(100 * GB), Stub("lora: Target modules nope not found"))


@pytest.mark.parametrize(
    ("method", "args", "says"),
    [
        ("lora", {"target_modules": "nope"}, "Target modules nope not found"),
        ("full_top_k", {"k": 100}, "k: 100 is not between 1 and the model's"),
        ("peft", {"peft_type": "VERA", "config": {"rr": 1}}, "unknown name 'rr'"),
        ("lora", {"init": "pissa"}, None),
    ],
)
def test_the_worker_says_what_a_method_refuses_and_nothing_about_weights_that_it_lacks(
    method: str, args: dict[str, object], says: str | None
) -> None:
    from harness.estimate.worker import step_of

    step = {"batch_size": 1, "length": 8, "dtype": "float32", "labels": 2, "execution": "{}", "has_step": True}
    answer = step_of({"model": "tiny-llama", "method": method, "method_args": json.dumps(args), **step})
    assert says in str(answer) if says else not isinstance(answer, str), answer
