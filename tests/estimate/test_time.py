"""The estimate of time: known answers of the formula, and what earlier rows on this machine change."""

from __future__ import annotations

import dataclasses
import json
import platform
import time as clocks
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import own_tasks

from harness.cli import console_tables
from harness.errors import InputError
from harness.estimate import machine, time
from harness.estimate.time import Texts, Work
from harness.estimate.unpacked import unpacked_params
from harness.sweeps.plan import Later, Plan, Planned
from harness.tasks import probes
from harness.trial import Budget, Trial

#: As they are; the tests of what follows from them give them sizes.
TEXTS, PROBE_TOKENS = time._texts, time._probe_tokens

PEAK = 1e12
TRIAL = Trial(
    notebook="methods/lora",
    method="lora",
    objective="sft",
    model="smollm2-135m",
    task="t",
    learning_rate=1e-3,
    budget=Budget(train_examples=16, batch_size=8, max_length=100, eval_examples=10),
)


@pytest.fixture(autouse=True)
def texts(monkeypatch: pytest.MonkeyPatch) -> Texts:
    answer = Texts(prompt=30, by_head=20, answer=10, scored=(8, 40), writes=True, longest=24)
    monkeypatch.setattr(time, "_texts", lambda _task: answer)
    return answer


def planned(**changes: Any) -> Planned:
    return Planned(TRIAL.model_copy(update=changes), None, estimated_flops=10**12)


def row(seconds: float, **changes: Any) -> dict[str, Any]:
    """A row of a table with a measured step of 10¹² FLOPs at full length."""
    trial = TRIAL.model_dump()
    of_run = {"status": "ok", "hostname": platform.node(), "duration_s": seconds, "requested_device": "auto"}
    flops = {"train_flops": 0.52 * 10**12, "train_steps": 2}
    return {**trial, **TRIAL.budget.columns(), **of_run, **flops, **changes}


def estimated(plan: Planned, *rows: dict[str, Any], peak: float | None = PEAK) -> float | None:
    return time.judge(Plan("s", (plan,)), rows, lambda _device, _dtype: peak).rows[0].estimated_s


WORK = Work(steps=10, step_flops=4.2e11, updated=0, unpacked=0, forward_flops=1e9, read=42, scored=64, written=0,
            longest=8)  # fmt: skip
#: A token through the network of WORK, in a batch and alone.
TOKEN_S, ALONE_S = 1e-3 / 0.42, 1e-3 / 0.016


def test_the_formula_by_hand() -> None:
    reading = 64 * 42 * TOKEN_S + 2 * 0.02
    latency = 256 * TOKEN_S
    assert WORK.seconds(PEAK) == pytest.approx(3.0 + 10 * (0.05 + 1.0) + reading + latency)
    speaks = dataclasses.replace(WORK, speaks=True)
    assert speaks.seconds(PEAK) - WORK.seconds(PEAK) == pytest.approx(46 * ALONE_S)
    writes = dataclasses.replace(speaks, written=5)
    added = 64 * 5 * TOKEN_S + 8 * ALONE_S
    assert writes.seconds(PEAK) - speaks.seconds(PEAK) == pytest.approx(added), "8 passes write a batch of 64"
    full = dataclasses.replace(writes, scored=65)
    assert full.seconds(PEAK) - writes.seconds(PEAK) == pytest.approx((42 + 5) * TOKEN_S + 0.02 + 8 * ALONE_S)


def test_what_moves_numbers_takes_time_too() -> None:
    more: list[dict[str, Any]] = [{"updated": 10**9}, {"unpacked": 10**9}, {"networks": 2}]
    extra_s = [dataclasses.replace(WORK, **one).seconds(PEAK) - WORK.seconds(PEAK) for one in more]
    assert extra_s == pytest.approx([10 * 0.7, 10 * 1.5 + 2 * 0.2, 256 * TOKEN_S])
    writes = dataclasses.replace(WORK, written=5, speaks=True)
    packed = dataclasses.replace(writes, unpacked=10**9)
    assert packed.seconds(PEAK) - writes.seconds(PEAK) == pytest.approx(10 * 1.5 + (2 + 8 + 46) * 0.2)
    both_ways = dataclasses.replace(writes, networks=2)
    assert both_ways.seconds(PEAK) - writes.seconds(PEAK) == pytest.approx(256 * TOKEN_S + 46 * ALONE_S)


@pytest.mark.parametrize(
    ("total", "stored", "dtype", "packed"),
    [(1000, 4000, "float32", 0), (1000, 4000 - 350, "float32", 100), (1000, 2000 - 150, "bfloat16", 100),
     (1000, 2400, "bfloat16", 0), (1000, 4000, "tf32", 0), (1000, 2250, "tf32", 500)],
)  # fmt: skip
def test_packed_weights_follow_from_the_size_of_all(total: int, stored: int, dtype: str, packed: int) -> None:
    assert unpacked_params(total, stored, dtype) == packed


def test_a_row_and_its_plan_do_the_same_work() -> None:
    stepped = dataclasses.replace(planned(), updated_params=7, unpacked_params=100)
    of_row = row(9.0, trainable_params=7, total_params=1000, weights_bytes=4000 - 350)
    assert time.work_of(stepped) == time.work_of_row(of_row)
    assert time.work_of(planned()) != time.work_of(stepped)
    untrained = row(9.0, method="baseline", train_steps=0, train_flops=None)
    as_planned = dataclasses.replace(planned(method="baseline", learning_rate=None), estimated_flops=None)
    assert time.work_of(as_planned) == time.work_of_row(untrained)


def test_the_work_of_a_trial_follows_its_budget_and_its_texts() -> None:
    work = time.work_of(planned())
    assert work is not None and (work.steps, work.scored, work.written) == (2, 8 + 10, 10)
    assert work.step_flops == pytest.approx(0.52 * 10**12), "1.3 x (30 + 10) of 100 tokens"
    assert work.forward_flops == 2 * 134515008 and work.read == pytest.approx(39)
    assert (work.longest, work.networks, work.speaks) == (24, 2, True), "LoRA can be merged"
    plain = time.work_of(planned(method="full"))
    assert plain is not None and plain.networks == 1
    encoder = time.work_of(planned(model="minilm-l6-22m"))
    assert encoder is not None and encoder.forward_flops == 2 * (22713216 - 30522 * 384)
    assert encoder.read == pytest.approx(26) and encoder.step_flops == pytest.approx(0.26 * 10**12)
    assert not encoder.speaks
    untrained = time.work_of(planned(method="baseline", learning_rate=None))
    assert untrained is not None and (untrained.steps, untrained.written) == (0, 20)
    long = time.work_of(planned(budget=Budget(max_length=16, max_new_tokens=4)))
    assert long is not None and (long.step_flops, long.read, long.written, long.longest) == (10**12, 16, 4, 4)
    allowed = time.work_of(planned(budget=Budget(max_new_tokens=99)))
    assert allowed is not None and allowed.longest == 24, "a budget allows no more than the task"


@pytest.mark.parametrize("change", [{"model": "minilm-l6-22m"}, {"objective": "reward"}], ids=str)
def test_a_head_writes_no_answer_and_is_asked_no_probe(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "_probe_tokens", lambda _name: 5000.0)
    budget = TRIAL.budget.model_copy(update={"probes": ("retention",)})
    work, same = time.work_of(planned(budget=budget, **change)), time.work_of_row(row(9.0, **change))
    assert work is not None and (work.written, work.speaks, work.probed) == (0, False, 0)
    assert same is not None and (same.written, same.speaks) == (0, False)


KINDS: list[tuple[dict[str, Any], bool]] = [
    ({"kind": "generation", "completion": "{a}"}, True),
    ({"kind": "preference", "completion": "{a}", "rejected": "{n}"}, True),
    ({"kind": "regression", "label": "n"}, True),
    ({"kind": "cloze", "completion": "{a}"}, False),
    ({"kind": "classification", "label": "c", "labels": {"x": "x", "y": "y"}}, False),
    ({"kind": "multiple_choice", "choices": ["{a}", "{n}"], "label": "i"}, False),
]


@pytest.mark.parametrize(("task", "writes"), KINDS, ids=[task["kind"] for task, _ in KINDS])
def test_the_texts_of_a_task_are_as_long_as_its_rows_and_some_are_written(
    task: dict[str, Any], writes: bool, tmp_path: Path
) -> None:
    """Prompts of 8 characters are 2 tokens, twice the same for a head 4, and answers of 4 are one."""
    rows = "q,a,n,c,i\n" + "".join(f"ask {n:04},w{n:03},{n + 1000},{'xy'[n % 2]},{n % 2}\n" for n in range(12))
    more = {"prompt": "{q}", "text": "{q}{q}", "max_new_tokens": 7, "splits": {"validation": 2, "test": 4}}
    texts = TEXTS(own_tasks.task(tmp_path, "rows.csv", rows, task, **more))
    assert texts is not None
    assert (texts.prompt, texts.by_head, texts.scored, texts.longest) == (2, 4, (2, 4), 7)
    assert texts.writes is writes
    if task["kind"] != "classification":
        assert texts.answer == 1


def test_a_probe_is_read_with_its_answers_and_cut_to_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two examples of each task: 8 and 4 characters are 3 tokens; 40 and 4 are 11 and are cut to 10."""
    tasks = []
    for length in (4, 36):
        (folder := tmp_path / str(length)).mkdir()
        rows = "q,a\n" + "".join(f"{'a' * length}{n:04},w{n:03}\n" for n in range(12))
        tasks.append(
            own_tasks.task(folder, "rows.csv", rows, own_tasks.GENERATION, splits={"validation": 2, "test": 4})
        )
    suite = probes.Suite("own", "two tasks", 1, tasks[0], (tasks[1],), examples=2, max_length=10)
    monkeypatch.setitem(probes.SUITES, "own", suite)
    assert PROBE_TOKENS("own") == pytest.approx(1.3 * (2 * 3 + 2 * 10))


def test_batches_drawn_at_random_are_padded_more(texts: Texts, monkeypatch: pytest.MonkeyPatch) -> None:
    alike = time.work_of(planned())
    monkeypatch.setattr(time, "_texts", lambda _task: dataclasses.replace(texts, by_length=False))
    at_random = time.work_of(planned())
    assert alike is not None and at_random is not None
    assert at_random.step_flops / alike.step_flops == pytest.approx(1.8 / 1.3)
    assert at_random.read == alike.read, "evaluation sorts what it reads"


def test_probes_are_read_by_decoders_after_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "_probe_tokens", lambda name: {"retention": 5000.0}[name])
    probed = planned(budget=TRIAL.budget.model_copy(update={"probes": ("retention",)}))
    plain, asked = time.work_of(planned()), time.work_of(probed)
    assert plain is not None and asked is not None and (plain.probed, asked.probed) == (0, 5000)
    assert asked.seconds(PEAK) - plain.seconds(PEAK) == pytest.approx(5000 * 2 * 134515008 / 0.42 / PEAK)
    encoder = time.work_of(dataclasses.replace(probed, trial=probed.trial.model_copy(update={"model": "tiny-bert"})))
    assert encoder is not None and encoder.probed == 0
    assert estimated(probed, row(77.0, probes="retention")) == 77, "the row of a table is one of the same cell"
    assert estimated(probed, row(77.0)) != 77 and estimated(planned(), row(77.0, probes="retention")) != 77


def test_latency_is_measured_with_each_number_of_sequences() -> None:
    """Sixteen read 16 x 256 tokens in the time of 16 passes, and write 46 tokens each beside the first one's."""
    asked = planned(budget=TRIAL.budget.model_copy(update={"latency_batches": (1, 16)}))
    plain, several = time.work_of(planned()), time.work_of(asked)
    assert plain is not None and several is not None and several.latency_batches == (1, 16)
    token_s, pass_s = (2 * 134515008 / share / PEAK for share in (0.42, time._ALONE))
    more = 256 * 16 * token_s + 46 * (pass_s + 15 * token_s)
    assert several.seconds(PEAK) - plain.seconds(PEAK) == pytest.approx(plain.networks * more)
    assert estimated(asked, row(77.0, latency_batches="1, 16")) == 77
    assert estimated(asked, row(77.0)) != 77


def test_what_is_planned_later_takes_as_long_as_its_cell_and_is_else_counted() -> None:
    rows = tuple(dataclasses.replace(planned(seed=seed), estimated_s=10.0 + seed) for seed in (0, 1, 2))
    ids = tuple(one.trial_id for one in rows)
    known = {"method": "lora", "task": "t", "seed": [3, 4]}
    of_cell, of_another = Later(known, 2, ids), Later({**known, "method": "bitdelta"}, 5, ids)
    assert time.total_s(Plan("s", rows, later=(of_cell,))) == (33 + 2 * 11, 0)
    assert time.total_s(Plan("s", rows, later=(of_cell, of_another))) == (33 + 2 * 11, 5)


def test_earlier_rows_of_the_same_cell_are_the_estimate_and_others_correct_it() -> None:
    alone = estimated(planned())
    assert alone is not None
    assert estimated(planned(), row(10.0), row(40.0), row(11.0)) == 11.0
    other = {"method_args": '{"r": 4}', "train_examples": 32}
    assert estimated(planned(), row(3 * _cold(32), **other)) == pytest.approx(3 * alone)
    of_others = row(2 * _cold(16), method="dora"), row(2 * _cold(16), method="ia3", model="gemma3-270m")
    assert estimated(planned(), of_others[0]) == pytest.approx(2 * alone)
    assert estimated(planned(), row(5 * _cold(32), **other), of_others[0]) == pytest.approx(5 * alone)


def _cold(examples: int) -> float:
    work = time.work_of(planned(budget=TRIAL.budget.model_copy(update={"train_examples": examples})))
    assert work is not None
    return work.seconds(PEAK)


@pytest.mark.parametrize("shared", [{"disturbed": True}, {"concurrent_trials": 1}])
def test_rows_that_shared_the_machine_count_where_no_others_do(shared: dict[str, Any]) -> None:
    alone = estimated(planned())
    assert alone is not None
    assert estimated(planned(), row(100.0, **shared)) == 100
    assert estimated(planned(), row(100.0, **shared), row(40.0, disturbed=False, concurrent_trials=0)) == 40
    quiet = row(3 * _cold(32), train_examples=32)
    assert estimated(planned(), row(100.0, **shared), quiet) == pytest.approx(3 * alone)
    assert estimated(dataclasses.replace(planned(), estimated_flops=None), row(100.0, **shared), quiet) == 100


@pytest.mark.parametrize("changes", [{"hostname": "other"}, {"status": "failed"}, {"duration_s": None}])
def test_rows_of_other_machines_and_failures_count_for_nothing(changes: dict[str, Any]) -> None:
    assert estimated(planned(), row(100.0, **changes)) == estimated(planned())


def test_what_is_not_known_is_none_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert estimated(planned(), peak=None) is None
    assert estimated(dataclasses.replace(planned(), estimated_flops=None)) is None
    assert estimated(dataclasses.replace(planned(), estimated_flops=None), row(9.0)) == 9.0
    assert estimated(dataclasses.replace(planned(), reason="no")) is None
    rows = (planned(), dataclasses.replace(planned(seed=1), estimated_flops=None), planned(seed=2))
    plan = time.judge(Plan("s", rows), (), lambda *_: PEAK)
    total, unknown = time.total_s(plan)
    assert total == pytest.approx(2 * _cold(16)) and unknown == 1
    (line,) = console_tables.time_of(90.0, 1)
    assert line == "estimated to take 1 min 30 s one after the other, without 1 whose time is not known"
    assert list(console_tables.time_of(0.0, 3)) == []
    monkeypatch.setattr(time, "_texts", lambda _task: None)
    assert estimated(planned()) is None


def test_tables_below_a_folder_are_read_and_broken_ones_passed_over(tmp_path: Path) -> None:
    for name in ("a", "b", "cpu/deeper"):
        (tmp_path / name / "tables").mkdir(parents=True)
    pq.write_table(pa.table({"method": ["lora"]}), tmp_path / "a" / "tables" / "trials.parquet")
    (tmp_path / "b" / "tables" / "trials.parquet").write_text("no table")
    pq.write_table(pa.table({"method": ["full"]}), tmp_path / "cpu" / "deeper" / "tables" / "trials.parquet")
    before = {"probes": None, "latency_batches": "1"}
    rows = [{**before, "method": "lora"}, {**before, "method": "full"}]
    assert time.rows_of(tmp_path) == rows, "tables from before these columns"
    assert time.rows_of(tmp_path / "none") == []


def test_the_machine_is_measured_once_and_a_disturbed_measurement_again_the_next_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNEBENCH_FLOPS_PER_S", raising=False)
    monkeypatch.setenv("TUNEBENCH_CACHE", str(tmp_path))
    answers: list[dict[str, float | bool] | None] = [
        None,
        {"flops_per_s": 1e9, "undisturbed": False},
        {"flops_per_s": 2e9, "undisturbed": True},
    ]
    monkeypatch.setattr(machine, "_measured", lambda _device, _dtype: answers.pop(0))
    now = clocks.time()
    monkeypatch.setattr("harness.estimate.machine.time.time", lambda: now)
    assert machine.flops_per_s("auto", "float32") is None
    assert [machine.flops_per_s("auto", "float32") for _ in range(2)] == [1e9, 1e9]
    now += 2 * 86400
    assert [machine.flops_per_s("auto", "float32") for _ in range(2)] == [2e9, 2e9]
    now += 20 * 86400
    assert machine.flops_per_s("auto", "float32") == 2e9 and answers == []


def test_another_number_of_threads_is_another_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNEBENCH_FLOPS_PER_S", raising=False)
    monkeypatch.setenv("TUNEBENCH_CACHE", str(tmp_path))
    speeds = {"1": 1e9, "2": 2e9}
    monkeypatch.setattr(
        machine, "_measured", lambda *_: {"flops_per_s": speeds[machine._threads()], "undisturbed": True}
    )
    for threads in ("1", "2", "1"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        assert machine.flops_per_s("cpu", "float32") == speeds[threads]


@pytest.mark.parametrize(
    ("all_threads", "share", "one_thread", "expected"),
    [(300.0, 1.0, 200.0, (300.0, True)), (28.0, 0.2, 170.0, (340.0, False)), (350.0, 0.8, 150.0, (350.0, False))],
)
def test_a_peak_that_others_disturbed_is_that_of_one_thread_for_each(
    monkeypatch: pytest.MonkeyPatch,
    all_threads: float,
    share: float,
    one_thread: float,
    expected: tuple[float, bool],
) -> None:
    import torch

    from harness.measure import roofline

    now = [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: now.__setitem__(0, threads))

    def measured(*_: object) -> roofline.Roofline:
        flops = all_threads if now[0] == 2 else one_thread
        return roofline.Roofline("x", "float32", flops, 1.0, share)

    monkeypatch.setattr(roofline, "roofline", measured)
    monkeypatch.setattr(roofline, "measure_roofline", measured)
    assert machine._peak(torch.device("cpu"), "float32") == expected


def test_a_variable_says_the_speed_of_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEBENCH_FLOPS_PER_S", "3e14")
    assert machine.flops_per_s("cuda", "bfloat16") == 3e14
    for text in ("fast", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("TUNEBENCH_FLOPS_PER_S", text)
        with pytest.raises(InputError, match=r"is not a number of FLOPs per second, such as 3e11"):
            machine.flops_per_s("cpu", "float32")


def test_a_row_of_a_plan_keeps_its_time() -> None:
    written = json.loads(json.dumps(dataclasses.replace(planned(), estimated_s=12.5).document()))
    assert written["estimated_s"] == 12.5 and Planned.from_document(written).estimated_s == 12.5


def test_products_in_tf32_are_no_peak_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from harness.measure import roofline

    asked = []

    def measured(_device: object, dtype: torch.dtype, number_format: str) -> roofline.Roofline:
        asked.append((dtype, number_format))
        return roofline.Roofline("x", number_format, 1.0, 1.0, 1.0)

    monkeypatch.setattr(roofline, "roofline", measured)
    for number_format in ("tf32", "float32"):
        machine._peak(torch.device("cpu"), number_format)
    assert asked == [(torch.float32, "tf32"), (torch.float32, "float32")]
