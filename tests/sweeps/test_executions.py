"""The ``execution`` block of a sweep: axes of its own, ids that stay, and rows that say what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import tiny_models as tiny

from harness.errors import InputError
from harness.execution import Execution
from harness.sweeps import executions
from harness.sweeps import expand as matrix
from harness.sweeps import spec as sweep
from harness.sweeps.plan import Plan
from harness.trial import Trial

Planner = Callable[..., Plan]


@pytest.fixture
def plan(tmp_path: Path) -> Planner:
    """Plan a sweep over the real notebooks."""

    def planned(*overrides: str, **changes: Any) -> Plan:
        document = {
            "name": "how",
            "models": ["smollm2-135m"],
            "tasks": ["factual_summary"],
            "methods": {"lora": {"learning_rate": 1e-3}},
            **changes,
        }
        (tmp_path / "how.yaml").write_text(yaml.safe_dump(document))
        return matrix.plan(sweep.load(tmp_path / "how.yaml", overrides))

    return planned


def asked(planned: Plan) -> list[dict[str, Any]]:
    return [row.trial.execution.asked for row in planned.runnable]


def test_lists_are_axes_and_one_value_is_one(plan: Planner) -> None:
    made = plan(execution={"packing": [False, True], "accumulation": [1, 2], "loss": "chunked"}, seeds=[0, 1])
    chunked: dict[str, Any] = {"loss": "chunked"}
    two: list[dict[str, Any]] = [chunked, {**chunked, "accumulation": 2}]
    assert asked(made) == [one for how in (*two, *({**one, "packing": True} for one in two)) for one in (how, how)]
    assert [row.trial.seed for row in made.rows] == [0, 1] * 4


def test_what_is_usual_leaves_no_trace_in_an_id(plan: Planner) -> None:
    silent = plan().rows[0]
    usual = plan(execution={name: field.default for name, field in Execution.model_fields.items()}).rows[0]
    packed = plan("execution.packing=true").rows[0]
    assert silent.trial_id == usual.trial_id != packed.trial_id
    assert "execution" not in silent.trial.canonical_json()
    assert '"execution":{"packing":true}' in packed.trial.canonical_json()
    assert Trial.from_json(packed.trial.canonical_json()) == packed.trial


def test_a_sweep_that_was_written_plans_the_same(plan: Planner, tmp_path: Path) -> None:
    made = plan(execution={"packing": [False, True]})
    written = sweep.load(tmp_path / "how.yaml").to_yaml()
    (tmp_path / "again.yaml").write_text(written)
    again = matrix.plan(sweep.load(tmp_path / "again.yaml"))
    assert [row.trial_id for row in again.rows] == [row.trial_id for row in made.rows]


def test_what_trains_nothing_runs_once_and_as_usual(plan: Planner) -> None:
    made = plan(methods={"baseline": {}}, execution={"packing": [False, True], "attention": "eager"})
    assert asked(made) == [{}]


@pytest.mark.parametrize(
    ("how", "changes", "reason"),
    [
        (
            {"packing": True},
            {"methods": ["prefix"]},
            "packing: not with method 'prefix': it puts virtual tokens before",
        ),
        ({"gradient_checkpointing": True}, {"methods": ["prefix"]}, "gradient_checkpointing: not with method 'prefix'"),
        (
            {"shared_prompts": True},
            {},
            "shared_prompts: examples share a prompt in one row; write execution.packing: true",
        ),
        (
            {"packing": True, "shared_prompts": True, "accumulation": 8},
            {},
            "shared_prompts: a row of one example shares nothing; batch_size is 8, accumulation 8",
        ),
        (
            {"attention": "eager", "packing": True, "shared_prompts": True},
            {},
            "shared_prompts: needs the attention sdpa; execution.attention is eager",
        ),
        (
            {"packing": True, "shared_prompts": True},
            {"methods": ["bitdelta"]},
            "shared_prompts: not with method 'bitdelta': its loss is of the prompts, too",
        ),
        (
            {"packing": True, "shared_prompts": True},
            {"tasks": ["news_corpus"], "objectives": ["clm"]},
            "shared_prompts: not with objective 'clm': its texts have no prompts",
        ),
        ({"accumulation": 3}, {}, "accumulation: 3 equal parts cannot be made of a batch of 8"),
        ({"attention": "flash_attention_2"}, {}, "attention: flash_attention_2 computes in 16 bits; dtype is float32"),
        ({"packing": True}, {"models": ["minilm-l6-22m"], "tasks": ["trec"]}, "packing: needs decoder models; 'minilm"),
        (
            {"loss": "chunked"},
            {"resources": {"processes": 2}},
            "loss: several processes train together in the usual way",
        ),
        (
            {"packing": True},
            {"tasks": ["factual_preference"], "objectives": ["dpo"]},
            "packing: not with objective 'dpo'",
        ),
        (
            {"compile": True},
            {"tasks": ["factual_preference"], "objectives": ["kto"]},
            "compile: not with objective 'kto'",
        ),
    ],
)
def test_an_impossible_cell_is_a_row_with_its_reason(
    plan: Planner, how: dict[str, Any], changes: dict[str, Any], reason: str
) -> None:
    made = plan(execution=how, **changes)
    skipped = [row.reason for row in made.skipped if row.trial.execution.asked == how]
    assert skipped and all(one is not None and one.startswith(f"execution.{reason}") for one in skipped), skipped
    assert not [row for row in made.runnable if row.trial.objective in ("dpo", "kto") or "objectives" not in changes]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"defaults": {"dtype": "tf32", "device": "cpu"}}, "tf32 is a format of NVIDIA's GPUs since Ampere; device is"),
        (
            {"defaults": {"dtype": "float16"}, "resources": {"processes": 2}},
            "the loss of float16 is scaled in one process",
        ),
    ],
)
def test_a_format_that_cannot_be_is_a_row_with_its_reason(plan: Planner, changes: dict[str, Any], reason: str) -> None:
    made = plan(**changes)
    assert made.skipped and not made.runnable
    assert {str(row.reason).startswith(f"dtype: {reason}") for row in made.skipped} == {True}
    assert plan(defaults={"dtype": "tf32"}).runnable, "which device a trial gets, its machine knows"


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"packing": "yes"}, r"execution\.packing: must be true or false \(given: 'yes'\)$"),
        ({"pack": True}, r"execution: unknown name 'pack'; did you mean 'packing'\?$"),
        (
            {"attention": ["sdpa", "flash"]},
            r"execution\.attention\.1: unknown name 'flash'; valid: auto, eager, flash_attention_2, .*sdpa$",
        ),
        ({"accumulation": [2, 2]}, r"execution\.accumulation: a value is given twice"),
        ({"loss": []}, r"execution\.loss: an empty list is no axis"),
        ([], r"execution: must be a mapping"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(plan: Planner, block: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as told:
        plan(execution=block)
    assert "\n" not in str(told.value)


def test_filters_know_the_fields(plan: Planner) -> None:
    made = plan(execution={"packing": [False, True], "accumulation": [1, 2]}, exclude=[{"execution.accumulation": 2}])
    assert asked(made) == [{}, {"packing": True}]
    assert made.excluded == (({"execution.accumulation": 2}, 2),)
    assert asked(made.only({"execution.packing": [True]})) == [{"packing": True}]


def test_a_child_starts_from_what_trained_like_it_and_one_judge_serves_all(plan: Planner) -> None:
    made = plan(
        tasks=["factual_preference"],
        objectives=["dpo"],
        methods={"full": {"learning_rate": 1e-5}},
        execution={"accumulation": [1, 2]},
    )
    children = [row.trial for row in made.runnable if row.trial.objective == "dpo"]
    parents = [made.by_id[child.parents["sft"][0]].trial.execution for child in children]
    assert [child.execution for child in children] == parents == [Execution(), Execution(accumulation=2)]
    assert len({child.parents[role] for child in children for role in ("reward",)}) == 1
    assert len({child.parents["opponent"] for child in children}) == 1


def test_the_fields_of_what_cannot_be_exist() -> None:
    assert {name for unable in executions._UNABLE.values() for name in unable} <= set(Execution.model_fields)


@pytest.mark.slow
def test_a_notebook_that_trains_in_another_way_makes_a_skipped_row_that_stays(tmp_path: Path) -> None:
    """One of the notebooks says that this cannot be; the other says nothing about how it trained."""
    methods = {"full": {"act": ["ok", "raise"]}}
    inactive = (
        "from harness.execution import NotActive\nif act == 'raise':\n    raise NotActive('execution.loss: no such')"
    )
    written = f"from harness.results.record import write_outcome\n{tiny.OUTCOME}"
    bench = tiny.bench(tmp_path, methods=methods, execution={"optimizer": "lion"})
    tiny.notebook(tmp_path / "notebooks" / "methods" / "full.ipynb", cells=(inactive, written))
    code, out, err = tiny.done(tiny.tunebench(tmp_path, "run", bench.name))
    assert code == 0, out + err
    trials = sorted(tmp_path.glob("results/tiny/trials/*/record.json"))
    reasons = sorted(yaml.safe_load(path.read_text())["reason"] for path in trials)
    assert reasons == [
        "execution.loss: no such",
        "execution.optimizer: lion was asked for, and nothing shows what was active",
    ]
    code, out, err = tiny.done(tiny.tunebench(tmp_path, "run", bench.name))
    assert (code, out.split("\n")[0][:13]) == (0, "nothing to do"), out + err
