"""Sweeps and plans: what a YAML file means, and one clear line for everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import tiny_models as tiny
from hypothesis import given
from hypothesis import strategies as st

from harness import catalog, notebooks, specfile
from harness.errors import InputError
from harness.sweeps import expand as matrix
from harness.sweeps import fairness
from harness.sweeps import spec as sweep
from harness.sweeps.plan import Plan, Planned, in_order
from harness.trial import Budget, Trial

Planner = Callable[..., Plan]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planner:
    """Plan a sweep over the tiny notebooks; keyword arguments are keys of the YAML."""
    monkeypatch.setenv("TUNEBENCH_NOTEBOOKS", str(tmp_path / "notebooks"))

    def planned(*overrides: str, **changes: Any) -> Plan:
        return matrix.plan(sweep.load(tiny.bench(tmp_path, **changes), overrides))

    return planned


def test_lists_are_axes_and_seeds_multiply(plan: Planner) -> None:
    made = plan(seeds=[0, 1, 2], methods={"full": {"learning_rate": [1e-5, 5e-5]}, "lora": {"r": [4, 8], "scale": 2}})
    cells = {(t.method, t.seed, t.learning_rate, t.method_args["r"]) for t in (row.trial for row in made.runnable)}
    assert len(cells) == len(made.runnable) == 3 * 2 + 3 * 2
    assert ("lora", 2, 1e-3, 4) in cells, "a learning rate that is not given is the notebook's"


def test_every_parameter_of_the_notebook_is_in_the_trial(plan: Planner) -> None:
    implicit, explicit = plan(), plan(methods={"full": {"r": 8, "layers": ["q", "v"]}})
    args = {"act": "ok", "r": 8, "scale": 1.0, "layers": ["q", "v"], "note": None}
    assert implicit.rows[0].trial.method_args == args
    assert implicit.rows[0].trial_id == explicit.rows[0].trial_id


def test_a_limit_of_answers_that_is_not_set_leaves_the_id_alone() -> None:
    names = {"notebook": "methods/full", "method": "full", "objective": "sft", "model": "m", "task": "t"}
    trial = Trial.model_validate({**names, "learning_rate": 1e-3, "protocol_version": 3})
    assert trial.trial_id == "6a8f39e2b143", "an id once given stays"
    assert trial.model_copy(update={"protocol_version": 1}).trial_id == "90389bd474de", "that of an old ledger, too"
    short = trial.model_copy(update={"budget": Budget(max_new_tokens=8)})
    assert short.trial_id != trial.trial_id
    assert Trial.from_json(short.canonical_json()) == short
    assert short.parameters()["budget"]["max_new_tokens"] == 8


def test_every_trial_of_a_sweep_with_probes_is_asked_them(plan: Planner) -> None:
    silent, asked = plan(), plan(probes=["retention", "retention"])
    budgets = [row.trial.budget for row in asked.rows]
    assert budgets == [row.trial.budget.model_copy(update={"probes": ("retention",)}) for row in silent.rows]
    assert not {row.trial_id for row in asked.rows} & {row.trial_id for row in silent.rows}
    assert asked.rows[0].trial.parameters()["budget"]["probes"] == ["retention"], "what a notebook gives its experiment"
    assert asked.rows[0].trial == Trial.from_json(asked.rows[0].trial.canonical_json())
    one = plan(probes=["retention"], overrides=[{"match": {"model": "minilm-l6-22m"}, "budget": {"probes": []}}])
    assert {row.trial.budget.probes for row in one.rows if row.trial.model == "minilm-l6-22m"} == {()}


def test_latency_at_several_batch_sizes_is_part_of_what_a_trial_is(plan: Planner) -> None:
    """One sequence is always among them, and alone it leaves no trace."""
    usual, asked = plan(), plan(budget={"latency_batches": [16, 4, 4]})
    assert {row.trial.budget.latency_batches for row in asked.rows} == {(1, 4, 16)}
    assert '"latency_batches":[1,4,16]' in asked.rows[0].trial.canonical_json()
    assert "latency_batches" not in usual.rows[0].trial.canonical_json()
    assert Planned.from_document(asked.rows[0].document()).trial == asked.rows[0].trial, "plan.json gives a list"
    row = asked.rows[0].trial
    assert Budget(**row.parameters()["budget"]) == row.budget, "as papermill gives a notebook a list"
    changed = plan(overrides=[{"match": {"model": "minilm-l6-22m"}, "budget": {"latency_batches": [2]}}])
    sizes = {row.trial.budget.latency_batches for row in changed.rows if row.trial.model == "minilm-l6-22m"}
    assert sizes == {(1, 2)}
    assert plan(budget={"latency_batches": []}).rows[0].trial.budget.latency_batches == (1,)
    with pytest.raises(InputError, match=r"budget\.latency_batches\.0: must be greater than 0"):
        plan(budget={"latency_batches": [0]})


def test_an_objective_may_ask_probes_of_its_own() -> None:
    """What continued pre-training forgets is half of its result."""
    planned = matrix.plan(sweep.load("all_methods", ["methods=[lora, baseline]", "tasks=[news_corpus]", "exclude=[]"]))
    assert {
        (row.trial.method, row.trial.budget.probes) for row in planned.runnable if row.trial.objective == "clm"
    } == {
        ("lora", ("retention",)),
        ("baseline", ()),
    }


@pytest.mark.parametrize(
    ("changes", "where"), [({"probes": ["retain"]}, "probes"), ({"budget": {"probes": ["retain"]}}, "budget.probes")]
)
def test_a_suite_that_does_not_exist_is_told(plan: Planner, changes: dict[str, Any], where: str) -> None:
    with pytest.raises(InputError, match=rf"{where}: unknown name 'retain'; did you mean 'retention'\?$"):
        plan(**changes)


def test_a_list_of_lists_is_the_axis_of_a_list(plan: Planner) -> None:
    one = plan(methods={"full": {"layers": ["k"]}})
    two = plan(methods={"full": {"layers": [["k"], ["q", "v"]]}})
    assert [row.trial.method_args["layers"] for row in one.rows] == [["k"]]
    assert [row.trial.method_args["layers"] for row in two.rows] == [["k"], ["q", "v"]]


def test_equal_cells_are_merged(plan: Planner) -> None:
    made = plan(methods={"full": {"scale": [1, 1.0, 2]}})
    assert (len(made.rows), made.duplicates) == (2, 1)


def test_a_baseline_with_examples_in_context_gets_the_seeds_that_draw_them(
    plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "PARAMETERS", tiny.PARAMETERS + "\nshots = 0")
    made = plan(models=["smollm2-135m"], seeds=[3, 4, 5], methods={"baseline": {"shots": [0, 2]}})
    cells = [(row.trial.method_args["shots"], row.trial.seed) for row in made.runnable]
    assert sorted(cells) == [(0, 3), (2, 3), (2, 4), (2, 5)]


@pytest.mark.parametrize(("task", "objective"), [("news_corpus", "clm"), ("factual_preference", "dpo")])
def test_what_does_not_train_runs_its_own_notebook_whatever_the_objective(
    tmp_path: Path, task: str, objective: str
) -> None:
    methods = {"baseline": {}, "quantized": {}, "lora": {"r": 2}}
    document = {"name": "own", "models": ["smollm2-135m"], "tasks": [task], "methods": methods}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(document))
    books = {row.trial.method: row.trial for row in matrix.plan(sweep.load(tmp_path / "own.yaml")).rows}
    assert books["lora"].notebook == f"objectives/{objective}"
    for method, notebook in (("baseline", "methods/baseline"), ("quantized", "studies/quantization")):
        trial = books[method]
        assert (trial.notebook, trial.parents, trial.objective_args) == (notebook, {}, {})


def test_baseline_comes_first_once_and_without_a_learning_rate(plan: Planner) -> None:
    made = plan(seeds=[3, 4], defaults={"learning_rate": 0.1}, methods={"lora": {}, "baseline": {}})
    assert [row.trial.method for row in made.rows] == ["baseline", "lora", "lora"]
    assert (made.rows[0].trial.learning_rate, made.rows[0].trial.seed) == (None, 3)


def test_natural_objectives_and_impossible_cells(plan: Planner) -> None:
    made = plan(
        models=["minilm-l6-22m", "smollm2-135m"],
        tasks=["trec", "factual_summary"],
        seeds=[0, 1],
        methods={"full": {"learning_rate": [0.1, 0.2]}},
    )
    assert {(row.trial.task, row.trial.objective) for row in made.rows} == {
        ("trec", "classification"),
        ("factual_summary", "sft"),
    }
    (impossible,) = made.skipped
    assert impossible.reason == "objective 'sft' needs decoder or encoder_decoder models; 'minilm-l6-22m' is encoder"
    assert len(made.runnable) == 3 * 2 * 2


def test_an_objective_that_does_not_suit_the_task_is_a_skipped_row(plan: Planner) -> None:
    made = plan(objectives=["classification", "sft"])
    (impossible,) = made.skipped
    assert impossible.reason is not None
    assert impossible.reason.startswith("objective 'sft' is for generation")
    assert impossible.reason.endswith("tasks; 'trec' is classification")


def test_arguments_that_the_model_cannot_take_are_skipped_alone(plan: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "PARAMETERS", tiny.PARAMETERS + "\nshots = 0")
    made = plan(models=["minilm-l6-22m", "smollm2-135m"], methods={"baseline": {"shots": [0, 4]}})
    assert [(row.trial.model, row.trial.method_args["shots"]) for row in made.runnable] == [
        ("minilm-l6-22m", 0),
        ("smollm2-135m", 0),
        ("smollm2-135m", 4),
    ]
    (skipped,) = made.skipped
    assert skipped.reason == (
        "baseline.shots: 4 needs decoder or encoder_decoder models: an encoder reads one text and no solved examples "
        "before it; 'minilm-l6-22m' is encoder"
    )


def test_encoder_decoders_are_skipped_with_the_reason(plan: Planner, tmp_path: Path) -> None:
    own = ("act", "r", "scale", "layers", "note")
    common = [line for line in tiny.PARAMETERS.splitlines() if line.split(" = ")[0] not in own]
    whole = "\n".join((*common, "method = 'full'", "method_args = {}"))
    tiny.notebook(tmp_path / "notebooks" / "objectives" / "clm.ipynb", whole)
    assert [row.trial.objective for row in plan(models=["t5-small"]).runnable] == ["classification"]
    made = plan(models=["t5-small"], tasks=["news_corpus"])
    (skipped,) = made.skipped
    assert skipped.reason == "objective 'clm' needs decoder models; 't5-small' is encoder_decoder"
    assert not made.runnable


def test_excluded_cells_are_counted_and_leave_no_row(plan: Planner) -> None:
    made = plan(
        seeds=[0, 1], methods={"full": {}, "lora": {"r": [4, 8]}}, exclude=[{"method": "lora", "r": [4]}, {"seed": 1}]
    )
    assert [count for _, count in made.excluded] == [2, 2]
    assert [(row.trial.method, row.trial.seed) for row in made.rows] == [("full", 0), ("lora", 0)]


def test_a_rate_of_a_method_that_gives_way_to_that_of_an_objective_is_told(plan: Planner) -> None:
    made = plan(
        methods={"full": {"learning_rate": 1e-4}, "lora": {"r": 4}},
        objectives={"classification": {"learning_rate": 0.5}},
    )
    assert {row.trial.learning_rate for row in made.rows} == {0.5}
    said = "methods.full.learning_rate is not used there: objectives.classification.learning_rate goes before it"
    assert [one for one in fairness.remarks(made) if "not used" in one] == [said] == made.document()["overruled"]


def test_an_override_of_a_budget_keeps_the_probes_that_an_objective_asks(
    plan: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    none: list[Any] = [{"match": {}, "budget": {"probes": []}}]
    monkeypatch.delenv("TUNEBENCH_NOTEBOOKS")
    made = plan(models=["smollm2-135m"], tasks=["novels_corpus"], methods={"full": {}}, overrides=none)
    assert {row.trial.budget.probes for row in made.rows} == {catalog.OBJECTIVES["clm"].probes} != {()}
    unasked = plan(tasks=["factual_summary"], methods={"full": {}}, probes=["retention"], overrides=none)
    assert {row.trial.budget.probes for row in unasked.rows} == {()}, "an override goes before the sweep's own"


def test_an_entry_that_matches_nothing_is_told(plan: Planner) -> None:
    """Seeds are numbers, r has no 5, no task is for SFT. An entry whose trials another one took already does match."""
    made = plan(
        methods={"full": {}, "lora": {"r": [4, 8]}},
        exclude=[{"seed": "0"}, {"method": "lora", "r": 4}, {"r": 4, "method": ["lora"]}, {"r": 5}],
        overrides=[
            {"match": {"objective": "sft"}, "budget": {"batch_size": 4}},
            {"match": {"task": "trec"}, "budget": {"batch_size": 2}},
            {"match": {}, "methods": {"full": {"r": 2}}},
            {"match": {}, "budget": {"batch_size": 2}, "methods": {"bitdelta": {}}},
            {"match": {"task": "trec"}},
        ],
    )
    assert [count for _, count in made.excluded] == [0, 1, 0, 0]
    assert [*made.unmatched] == made.document()["unmatched"]
    assert [said for said in fairness.remarks(made) if said.endswith("nothing")] == [
        "exclude.0 matches nothing",
        "exclude.3 matches nothing",
        "overrides.0 changes nothing",
        "overrides.3.methods.bitdelta changes nothing",
    ]


def test_overrides_change_what_they_match(plan: Planner) -> None:
    made = plan(
        models=["smollm2-135m"],
        tasks=["trec", "factual_summary"],
        budget={"train_examples": 64, "batch_size": 4},
        overrides=[
            {
                "match": {"task": ["trec"]},
                "budget": {"train_examples": 512},
                "methods": {"full": {"learning_rate": [0.1, 0.2]}},
            }
        ],
    )
    found = [
        (t.task, t.budget.train_examples, t.budget.batch_size, t.learning_rate) for t in (r.trial for r in made.rows)
    ]
    assert found == [("trec", 512, 4, 0.1), ("trec", 512, 4, 0.2), ("factual_summary", 64, 4, 1e-3)]


def test_the_command_line_wins_over_overrides(plan: Planner) -> None:
    overrides = [{"match": {"task": "trec"}, "budget": {"train_examples": 512, "max_length": 64}}]
    budget = plan("budget.train_examples=16", overrides=overrides).rows[0].trial.budget
    assert (budget.train_examples, budget.max_length) == (16, 64)


def test_set_reads_yaml_values_and_reaches_into_lists(plan: Planner) -> None:
    made = plan("methods.lora.learning_rate=[1e-4, 5e-4]", "exclude.0.method=full", exclude=[{"method": "lora"}])
    assert [row.trial.learning_rate for row in made.rows] == [1e-4, 5e-4]


def test_set_changes_one_place_of_what_an_alias_repeats(tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text(
        "name: twice\nmodels: [minilm-l6-22m]\ntasks: [trec]\n"
        "methods:\n  lora: &one {r: 8, learning_rate: 1e-3}\n  dora: *one\n"
        "overrides:\n- {match: {task: trec}, methods: {lora: &two {r: 2}, dora: *two}}\n"
    )
    read = sweep.load(tmp_path / "twice.yaml", ["methods.lora.r=4"])
    assert read.methods == {"lora": {"r": 4, "learning_rate": 1e-3}, "dora": {"r": 8, "learning_rate": 1e-3}}
    assert read.overrides[0].methods == {"lora": {}, "dora": {"r": 2}}


def test_true_and_false_are_no_numbers_in_filters(plan: Planner) -> None:
    made = plan(seeds=[0, 1], exclude=[{"seed": False}, {"scale": True}])
    assert [count for _, count in made.excluded] == [0, 0] and len(made.rows) == 2
    with pytest.raises(InputError, match="--only seed=false: no trial of the sweep has it"):
        made.matching({"seed": [False]})


@pytest.mark.parametrize("name", [{"a": "b"}, [["lora"]], 2024])
def test_a_filter_names_names(plan: Planner, name: Any) -> None:
    with pytest.raises(InputError, match=r"exclude\.0\.method: must be a name, or a list of names \(given: "):
        plan(exclude=[{"method": name}])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["lora", "lora"]}, "methods: 'lora' is given twice"),
        (
            {"overrides": [{"match": {}, "budget": {"train_examples": [8, 8]}}]},
            "train_examples: a value is given twice",
        ),
    ],
)
def test_what_is_given_twice_is_told(plan: Planner, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(**changes)


def test_only_chooses_rows_and_their_parents(plan: Planner) -> None:
    made = plan(methods={"full": {}, "lora": {"r": [4, 8]}})
    full, *loras = made.rows
    assert made.matching({"method": ["lora"], "r": [4]}) == {loras[0].trial_id}
    child = Planned(loras[0].trial.model_copy(update={"parents": {"full": (full.trial_id,)}}))
    assert Plan("tiny", (full, child)).matching({"method": ["lora"]}) == {full.trial_id, child.trial_id}


OBJECTIVE_PARAMETERS = (
    tiny.PARAMETERS.split("act =")[0] + "method = 'lora'\nmethod_args = {}\nbeta = 0.1\nparent_dirs = {}"
)


def test_parents_are_planned_once_and_before_their_children(
    plan: Planner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.notebook(tmp_path / "notebooks" / "objectives" / "dpo.ipynb", OBJECTIVE_PARAMETERS)
    dpo = replace(catalog.OBJECTIVES["dpo"], task_kinds=("generation",), parents=(catalog.Parent("sft", "sft"),))
    monkeypatch.setitem(catalog.OBJECTIVES, "dpo", dpo)
    made = plan(
        models=["smollm2-135m", "minilm-l6-22m"],
        tasks=["factual_summary"],
        methods={"lora": {"r": [4, 8], "learning_rate": [0.1, 0.2]}},
        objectives={"dpo": {"beta": [0.1, 0.5], "learning_rate": 0.01}},
    )
    sft, children = made.runnable[:4], made.runnable[4:]
    assert [(t.trial.objective, t.trial.method_args["r"], t.trial.learning_rate) for t in sft] == [
        ("sft", 4, 0.1),
        ("sft", 4, 0.2),
        ("sft", 8, 0.1),
        ("sft", 8, 0.2),
    ]
    by_r: dict[Any, tuple[str, ...]] = {
        r: tuple(row.trial_id for row in sft if row.trial.method_args["r"] == r) for r in (4, 8)
    }
    assert len(children) == 4
    for child in (row.trial for row in children):
        assert child.parents == {"sft": by_r[child.method_args["r"]]}, "each setting that the sweep has is a candidate"
        assert (child.notebook, child.learning_rate) == ("objectives/dpo", 0.01)
        assert child.objective_args.keys() == {"beta"}
    (impossible,) = made.skipped
    assert impossible.reason == "objective 'dpo' needs decoder models; 'minilm-l6-22m' is encoder"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"lroa": {}}}, "methods: unknown name 'lroa'; did you mean 'lora'?"),
        ({"models": ["minilm"]}, "models: model: unknown name 'minilm'; did you mean 'minilm-l6-22m'?"),
        ({"tasks": ["treck"]}, "tasks: task: unknown name 'treck'; did you mean 'trec'?"),
        ({"objectives": ["stf"]}, "objectives: unknown name 'stf'; did you mean 'sft'?"),
        ({"sedes": [0]}, "unknown name 'sedes'; did you mean 'seeds'?"),
        ({"budget": {"batchsize": 8}}, "budget: unknown name 'batchsize'; did you mean 'batch_size'?"),
        ({"limits": {"time": 8}}, "limits: unknown name 'time'; did you mean 'time_s'?"),
        ({"budget": {"batch_size": "8"}}, "budget.batch_size: must be a whole number (given: '8')"),
        ({"seeds": [0, 0]}, "seeds: a value is given twice"),
        ({"seeds": [-1]}, "seeds.0: must be at least 0 (given: -1)"),
        ({"methods": {"full": {"rr": 8}}}, "methods.full: unknown name 'rr'; did you mean 'r'?"),
        ({"methods": {"full": {"seed": 8}}}, "methods.full: unknown name 'seed'"),
        (
            {"methods": {"full": {"r": [8, "4"]}}},
            "methods.full.r: must be a whole number, like the notebook's default 8 (given: '4')",
        ),
        (
            {"methods": {"full": {"r": True}}},
            "methods.full.r: must be a whole number, like the notebook's default 8 (given: true)",
        ),
        ({"methods": {"full": {"r": []}}}, "methods.full.r: an empty list is no axis"),
        (
            {"methods": {"full": {"scale": None}}},
            "methods.full.scale: must be a number, like the notebook's default 1.0 (given: null)",
        ),
        (
            {"methods": {"full": {"learning_rate": -1.0}}},
            "methods.full.learning_rate: must be greater than 0 (given: -1.0)",
        ),
        ({"defaults": {"dtyp": "float32"}}, "defaults: unknown name 'dtyp'; did you mean 'dtype'?"),
        ({"defaults": {"dtype": "float8"}}, "defaults.dtype: unknown name 'float8'; did you mean 'float32'?"),
        ({"exclude": [{"metod": "full"}]}, "exclude.0: unknown name 'metod'; did you mean 'method'?"),
        ({"exclude": [{"task": "trek"}]}, "exclude.0.task: unknown name 'trek'; did you mean 'trec'?"),
        (
            {"overrides": [{"match": {"task": "trek"}}]},
            "overrides.0.match.task: unknown name 'trek'; did you mean 'trec'?",
        ),
        ({"overrides": [{"match": {"seed": "1"}}]}, "overrides.0.match: unknown name 'seed'"),
        (
            {"overrides": [{"match": {}, "budget": {"epoch": 2}}]},
            "overrides.0.budget: unknown name 'epoch'; did you mean 'epochs'?",
        ),
        (
            {"overrides": [{"match": {}, "methods": {"full": {"r": "x"}}}]},
            "overrides.0.methods.full.r: must be a whole number, like the notebook's default 8",
        ),
        ({"name": "../up"}, "name: must match"),
        (
            {"methods": {"full": {"learning_rate": None}}},
            "methods.full.learning_rate: must be a number or a list of numbers; leave it out for the usual ones",
        ),
        ({"methods": {"full": {"learning_rate": [1e-3, None]}}}, "methods.full.learning_rate: must be a number or a"),
        (
            {"overrides": [{"match": {}, "methods": {"full": {"learning_rate": None}}}]},
            "overrides.0.methods.full.learning_rate: must be a number or a list of numbers",
        ),
        ({"defaults": {"learning_rate": None}}, "tiny.yaml: defaults.learning_rate: must be a number or a list of"),
        (
            {"objectives": {"sft": {"learning_rate": [None]}}},
            "tiny.yaml: objectives.sft.learning_rate: must be a number or a list of numbers",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(plan: Planner, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        plan(**changes)
    assert message in str(error.value)
    assert "tiny.yaml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("budget.train_example=1", "unknown name 'train_example'; did you mean 'train_examples'?"),
        ("bugdet.train_examples=1", "--set: unknown name 'bugdet'; did you mean 'budget'?"),
        ("seeds", "write KEY=VALUE"),
        ("seeds.7=1", "'7' is no position in a list of 1"),
        ("name.x=1", "there is nothing below 'tiny'"),
        ("seeds=[1", "--set seeds=[1"),
    ],
)
def test_mistakes_on_the_command_line(plan: Planner, text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        plan(text, seeds=[0])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (tiny.PARAMETERS.replace("dtype = 'float32'\n", ""), "the cell tagged 'parameters' lacks 'dtype'"),
        (tiny.PARAMETERS + "\nimport os", "line 15 of the cell tagged 'parameters' is not 'name = literal'"),
        (tiny.PARAMETERS + "\ny = r * 2", "the default of parameter 'y' is not a literal"),
        (tiny.PARAMETERS + "\ny = ", "is not Python"),
    ],
)
def test_a_broken_parameters_cell_is_told(plan: Planner, tmp_path: Path, parameters: str, message: str) -> None:
    plan()
    tiny.notebook(tmp_path / "notebooks" / "methods" / "lora.ipynb", parameters)
    made = sweep.load(tmp_path / "tiny.yaml", ["methods={lora: {}}"])
    with pytest.raises(InputError, match=message):
        matrix.plan(made)


def test_yaml_as_people_write_it() -> None:
    assert specfile.parse_yaml("[1e-4, 5.0e-5, 1E3, -2e+2, 1.5, 12]", "x") == [1e-4, 5e-5, 1000.0, -200.0, 1.5, 12]
    assert specfile.parse_yaml("[e5, 1e, '1e-4']", "x") == ["e5", "1e", "1e-4"]
    with pytest.raises(InputError, match="x: line 2: the key 'a' is given twice"):
        specfile.parse_yaml("a: 1\na: 2", "x")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_that_python_prints_is_a_float(value: float) -> None:
    assert specfile.parse_yaml(repr(value), "x") == value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(value=json_values, default=json_values)
def test_conform_keeps_the_type_of_the_default(value: Any, default: Any) -> None:
    try:
        conformed = notebooks.conform(value, default, "x")
    except InputError:
        assert default is not None
        assert type(value) is not type(default)
    else:
        assert conformed == value
        assert default is None or type(conformed) is type(default)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=10), st.randoms())
def test_parents_come_first_and_nothing_is_lost(picks: list[int], random: Any) -> None:
    rows: list[Planned] = []
    for seed, pick in enumerate(picks):
        parents: dict[str, tuple[str, ...]] = {"base": (rows[pick % len(rows)].trial_id,)} if rows and pick else {}
        trial = Trial(notebook="n", method="m", objective="o", model="x", task="t", seed=seed, parents=parents)
        rows.append(Planned(trial))
    shuffled = random.sample(rows, len(rows))
    ordered = in_order(shuffled)
    position = {row.trial_id: n for n, row in enumerate(ordered)}
    assert sorted(position) == sorted(row.trial_id for row in rows)
    assert all(position[parent] < position[row.trial_id] for row in rows for parent in row.trial.parent_ids)


@pytest.mark.slow
def test_the_sweeps_that_come_along_can_be_planned() -> None:
    for name in sweep.names():
        assert matrix.plan(sweep.load(name)).runnable, name


def test_a_sweep_survives_its_own_yaml(plan: Planner, tmp_path: Path) -> None:
    made = sweep.load(tiny.bench(tmp_path, overrides=[{"match": {"task": "trec"}, "budget": {"epochs": 2}}]))
    (tmp_path / "again.yaml").write_text(made.to_yaml())
    assert sweep.load(tmp_path / "again.yaml").model_dump() == made.model_dump()


@pytest.mark.slow
def test_the_sweep_of_all_methods_leaves_none_out() -> None:
    made = matrix.plan(sweep.load("all_methods"))
    trials = [row.trial for row in made.runnable]
    pairs = {(trial.method, trial.objective) for trial in trials}
    assert {method for method, _ in pairs} == set(catalog.METHODS)
    trained = {name: method for name, method in catalog.METHODS.items() if method.trains}
    assert pairs >= {(name, o) for name, method in trained.items() for o in method.objectives or catalog.OBJECTIVES}
    on = {(trial.method, trial.model) for trial in trials}
    left_out = {(row.trial.method, row.trial.model) for row in made.skipped} - on
    assert left_out == {("llama_adapter", "minilm-l6-22m")}
    assert on == {(m, model) for m in catalog.METHODS for model in ("minilm-l6-22m", "smollm2-135m")} - left_out
