"""The tables: one typed, documented, versioned description of every column.

Names carry units; a value that was not measured is null, never a sentinel. The data dictionary in
``docs/data_dictionary.md`` is generated from this file (``python -m harness.results.schema``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

from harness.results.columns import SCHEMA_VERSION, Column, Kind, Table
from harness.results.execution_columns import EXECUTION
from harness.results.long_tables import CURVES, EXAMPLE_SCORES, GENERATIONS, LATENCY, MEMORY, SCORES
from harness.results.serving_tables import MERGE_FIDELITY, SERVING
from harness.results.ways_table import WAYS

__all__ = [
    "LONG_TABLES",
    "SCHEMA_VERSION",
    "STATUSES",
    "TABLES",
    "TRIALS",
    "Column",
    "Kind",
    "Status",
    "Table",
    "dictionary",
]

#: How a trial can end.
Status = Literal["ok", "oom", "timeout", "diverged", "failed", "skipped"]
STATUSES: tuple[Status, ...] = get_args(Status)


def _group(group: str, *columns: Column) -> tuple[Column, ...]:
    return tuple(replace(column, group=group) for column in columns)


_C = Column

TRIALS = Table(
    name="trials",
    row="one trial, whatever its ending",
    key=("trial_id",),
    columns=(
        *_group(
            "identity",
            _C(
                "trial_id",
                "string",
                "first 12 hexadecimal digits of the SHA-256 of the frozen specification",
                True,
            ),
            _C("sweep", "string", "name of the sweep", True),
            _C("notebook", "string", "notebook that ran, under notebooks/", True),
            _C("method", "string", "which parameters train", True),
            _C("method_version", "string", "of an own method, digest of its file; null: the package's"),
            _C("method_args", "string", "arguments of the method, as JSON with sorted keys", True),
            _C("objective", "string", "which loss trains them", True),
            _C("objective_args", "string", "arguments of the objective, as JSON with sorted keys", True),
            _C(
                "parents",
                "string",
                "role -> trial_id of the trial that fills it, as JSON with sorted keys: what it started from ('sft', "
                "'full'), what judges it ('reward'), what its answers are compared with ('opponent'); of several "
                "candidates the one with the best valid_score",
                True,
            ),
            _C("parent_candidates", "string", "role -> trial_id of each trial that could have it, as JSON", True),
            _C(
                "parent_settings",
                "string",
                "role -> digests of the candidates' specifications without their seed, as JSON: the same for all seeds",
                True,
            ),
            _C("model", "string", "name of the base checkpoint", True),
            _C("model_revision", "string", "which revision of the checkpoint; null where its source has none"),
            _C("model_family", "string", "architecture family of the model, such as llama or bert"),
            _C(
                "model_params",
                "int",
                "parameters of the base checkpoint, before any method changes it",
                minimum=0,
            ),
            _C("task", "string", "name of the task", True),
            _C("task_version", "string", "version of the task's data, splits and metrics; null where it has none"),
            _C(
                "task_kind",
                "string",
                "classification, regression, multiple_choice, generation, cloze, preference or corpus",
            ),
            _C("seed", "int", "seed of data order, initialisation and dropout", True, minimum=0),
            _C("learning_rate", "float", "peak learning rate; null when nothing is trained", minimum=0),
            _C("batch_size", "int", "examples per optimiser step", True, minimum=1),
            _C("epochs", "int", "passes over the training examples", True, minimum=1),
            _C("max_length", "int", "maximum number of tokens in prompt and completion together", True, minimum=1),
            _C(
                "train_examples",
                "int",
                "examples of the training split that the budget allows",
                True,
                minimum=1,
            ),
            _C("eval_examples", "int", "maximum number of examples scored per split; null: all of them", minimum=1),
            _C("max_new_tokens", "int", "maximum number of tokens in an answer; null: the task's number", minimum=1),
            _C("probes", "string", "suites that were asked before and after training, by name; null: none"),
            _C("latency_batches", "string", "numbers of sequences at which latency was measured", True, before="1"),
            _C(
                "train_steps",
                "int",
                "optimiser steps taken; the steps of the budget where the trial did not end well; 0 without training",
                True,
                minimum=0,
            ),
            _C("dtype", "string", "number format of weights and arithmetic", True),
            _C(
                "device",
                "string",
                "device that ran the trial, such as cpu or cuda:0; the requested device where it did not run",
                True,
            ),
            _C("requested_device", "string", "requested device, such as auto or cpu", True),
            _C(
                "protocol_version",
                "int",
                "version of the measuring protocol; rows of different versions are not comparable",
                True,
                minimum=1,
            ),
        ),
        *_group("execution", *EXECUTION),
        *_group(
            "outcome",
            _C("status", "string", "how the trial ended", True, choices=STATUSES),
            _C("reason", "string", "why, when the status is not ok: one line"),
            _C("note", "string", "what a reader of the row must know, such as biases that the method added"),
            _C("failed_cell", "int", "index of the notebook cell that failed, from 0", minimum=0),
            _C(
                "attempt",
                "int",
                "how many times the trial was started; 0 when it was skipped",
                True,
                minimum=0,
            ),
            _C(
                "started_at",
                "timestamp",
                "when the last attempt started, UTC; for a skipped trial, when it was skipped",
            ),
            _C("duration_s", "float", "wall time of the last attempt, kernel start included", minimum=0),
            _C("setup_s", "float", "wall time of loading data and model and applying the method", minimum=0),
            _C("train_s", "float", "wall time of the training call, its preparation included", minimum=0),
            _C("eval_s", "float", "wall time of all evaluations", minimum=0),
            _C(
                "disturbed",
                "bool",
                "whether others had the processors for more than a twentieth of the time that training or the "
                "measurement of latency was ready to run; null where the system does not count it",
            ),
            _C(
                "concurrent_trials",
                "int",
                "how many other trials of the sweep ran on the same machine at some moment of the last attempt, at "
                "most; speeds and latencies of a row where it is not 0 are not compared",
                minimum=0,
            ),
        ),
        *_group(
            "size",
            _C(
                "total_params",
                "int",
                "parameters of the tuned model, those that the method added included",
                minimum=0,
            ),
            _C("trainable_params", "int", "parameters that an optimiser step may change", minimum=0),
            _C(
                "trainable_dtype",
                "string",
                "number format that trained parameters are held and updated in: float32 also where dtype has 16 bits "
                "(protocol, rule 13); null where nothing trains",
            ),
            _C("trainable_share", "float", "trainable_params / total_params", minimum=0, maximum=1),
            _C(
                "checkpoint_bytes",
                "int",
                "bytes on disk that each task must store, from a checkpoint that was saved and reloaded",
                minimum=0,
            ),
        ),
        *_group(
            "quality",
            _C("primary_metric", "string", "the task's main metric"),
            _C("higher_is_better", "bool", "direction of the primary metric"),
            _C(
                "valid_score",
                "float",
                "primary metric on the validation split, on which settings are selected",
            ),
            _C(
                "selected",
                "bool",
                "whether this row's setting (its learning rate, and the settings of its parents) is the one that "
                "validation chose for its cell: all else equal but the seed; false in a cell where no trial ended well",
                True,
            ),
            _C(
                "settings_tried",
                "int",
                "how many settings of the cell were run, on one seed or on several; skipped ones do not count",
                True,
                minimum=0,
            ),
            _C("test_score", "float", "primary metric on the test split, reported once"),
            _C("test_stderr", "float", "standard error of test_score over the test examples", minimum=0),
            _C("test_examples", "int", "examples behind test_score", minimum=0),
            _C(
                "base_score",
                "float",
                "primary metric of the untrained model (zero-shot) on the same test examples",
            ),
            _C(
                "majority_score",
                "float",
                "primary metric on the test split of one label for every example, the best such, or of the mean of all "
                "numbers; null for free answers and for correlations",
            ),
            _C(
                "forgetting",
                "float",
                "rise of the loss on held-out general text over the base model, in nats per token; null where no probe "
                "asks for it",
            ),
            _C(
                "forgetting_stderr",
                "float",
                "standard error of forgetting over the texts, each compared with itself before training",
                minimum=0,
            ),
        ),
        *_group(
            "training cost",
            _C("train_tokens", "int", "tokens of the examples that it trained on, each counted whole", minimum=0),
            _C(
                "padding_share",
                "float",
                "share of padding among all that the network read in training",
                minimum=0,
                maximum=1,
            ),
            _C(
                "example_tokens_cut",
                "float",
                "share of the training examples that lost tokens to max_length",
                minimum=0,
                maximum=1,
            ),
            _C(
                "train_tokens_per_s",
                "float",
                "tokens per second of training steps, padding and warm-up steps left out",
                minimum=0,
            ),
            _C(
                "train_step_s_median",
                "float",
                "median seconds of one optimiser step, warm-up steps left out",
                minimum=0,
            ),
            _C("train_step_s_p95", "float", "95th percentile of the same", minimum=0),
            _C("train_flops", "float", "floating-point operations of one training step, counted", minimum=0),
            _C(
                "mfu",
                "float",
                "share of the device's measured matrix-product peak that the training steps reached",
                minimum=0,
                maximum=1,
            ),
            _C("energy_j", "float", "joules of the training call, of the whole GPU or processor", minimum=0),
            _C("energy_reason", "string", "why a trial that trained has no energy"),
            _C(
                "chain_train_s",
                "float",
                "train_s of this trial and of every trial that it was trained from, such as the fine-tune that "
                "BitDelta compresses; without what only judges it, and without other settings that were tried",
                minimum=0,
            ),
            _C("chain_energy_j", "float", "energy_j of the same trials", minimum=0),
        ),
        *_group(
            "memory",
            _C(
                "peak_train_bytes",
                "int",
                "peak while training: allocated on the device, or resident in the process on CPU",
                minimum=0,
            ),
            _C(
                "estimated_bytes",
                "int",
                "peak of training that the plan expected on the device, temporaries included, interpreter and "
                "libraries left out; null where it was not estimated",
                minimum=0,
            ),
            _C("weights_bytes", "int", "weights and buffers, quantisation scales included", minimum=0),
            _C("gradients_bytes", "int", "gradients after a backward pass", minimum=0),
            _C("optimizer_bytes", "int", "optimiser states", minimum=0),
            _C(
                "activations_bytes",
                "int",
                "tensors kept for backward, each storage once, parameters left out",
                minimum=0,
            ),
            _C("peak_inference_bytes", "int", "peak while generating or predicting", minimum=0),
        ),
        *_group(
            "latency",
            _C("prefill_s_p50", "float", "median seconds to process one prompt, batch 1", minimum=0),
            _C(
                "decode_s_per_token_p50",
                "float",
                "median seconds per generated token after the first, batch 1",
                minimum=0,
            ),
            _C("decode_tokens_per_s", "float", "1 / decode_s_per_token_p50", minimum=0),
            _C(
                "control_ratio",
                "float",
                "the largest factor between median times of networks that must answer equally fast: the untrained one, "
                "a full fine-tune and what is merged into their weights, in this row's sweep, model, task, format and "
                "machine; above 1.2 no time of these rows is compared; null where there are no two such networks",
                minimum=1,
            ),
        ),
        *_group(
            "environment",
            _C("hostname", "string", "name of the machine"),
            _C("processor", "string", "processor model"),
            _C("processor_threads", "int", "threads of the trial's own process", minimum=1),
            _C("accelerator", "string", "accelerator model; null on CPU"),
            _C("torch_version", "string", "version of torch"),
            _C("transformers_version", "string", "version of transformers"),
            _C("peft_version", "string", "version of peft"),
            _C("trl_version", "string", "version of trl"),
            _C("bitsandbytes_version", "string", "version of bitsandbytes"),
            _C("git_commit", "string", "commit of the code that ran; null outside a checkout"),
            _C("git_dirty", "bool", "whether the checkout had uncommitted changes"),
        ),
    ),
)

_ALL = (TRIALS, SCORES, EXAMPLE_SCORES, CURVES, MEMORY, LATENCY, GENERATIONS, SERVING, MERGE_FIDELITY, WAYS)
#: Every table by name, in the order of the data dictionary.
TABLES: dict[str, Table] = {t.name: t for t in _ALL}

#: The long tables: what a notebook records beside the columns of ``trials``.
LONG_TABLES: dict[str, Table] = {name: table for name, table in TABLES.items() if name != "trials"}


def dictionary() -> str:
    """The data dictionary as Markdown, generated from :data:`TABLES`."""
    lines = [
        "# Data dictionary",
        "",
        f"Schema version {SCHEMA_VERSION}. Generated by `python -m harness.results.schema`; do not edit by hand.",
        "",
        "Every table is written as Parquet and CSV under `results/<sweep>/tables/` and validated against this schema.",
        "Names carry units. A missing value is null: it was not measured, or does not apply.",
        "",
        "A text that a spreadsheet would take for a formula (it begins with `=`, `+`, `-`, `@`, a tab or a line break)",
        "has an apostrophe before it in the CSV. Parquet holds every text as it was.",
    ]
    for table in TABLES.values():
        lines += [
            "",
            f"## {table.name}",
            "",
            f"One row: {table.row}. Key: {', '.join(f'`{k}`' for k in table.key)}.",
            "",
        ]
        grouped = any(c.group for c in table.columns)
        lines += ["| column | type | null | meaning |" if not grouped else "| group | column | type | null | meaning |"]
        lines += ["|---|---|---|---|" if not grouped else "|---|---|---|---|---|"]
        for c in table.columns:
            meaning = c.description + (f" ({', '.join(c.choices)})" if c.choices else "")
            cells = [f"`{c.name}`", c.kind, "no" if c.required else "yes", meaning]
            lines.append("| " + " | ".join([c.group, *cells] if grouped else cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from pathlib import Path

    target = Path(__file__).resolve().parents[2] / "docs" / "data_dictionary.md"
    target.write_text(dictionary(), encoding="utf-8")
    print(target)
