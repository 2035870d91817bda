"""The tables with several rows per trial: what a notebook records beside the columns of ``trials``."""

from __future__ import annotations

from harness.results.columns import Column, Table

_C = Column

_TRIAL_ID = _C("trial_id", "string", "the trial", True)

SCORES = Table(
    name="scores",
    row="one metric of one trial on one split",
    key=("trial_id", "split", "metric"),
    columns=(
        _TRIAL_ID,
        _C(
            "split",
            "string",
            "validation or test; 'base' marks the untrained model on the test split; what a suite of probes asks is "
            "under its name (after training), 'NAME_before' (the untouched base) and 'NAME_change' (after less before)",
            True,
        ),
        _C("metric", "string", "name of the metric", True),
        _C("value", "float", "the metric's value"),
        _C("stderr", "float", "standard error over the examples", minimum=0),
        _C("n", "int", "examples", minimum=0),
    ),
)

CURVES = Table(
    name="curves",
    row="one value at one training step",
    key=("trial_id", "step", "split", "metric"),
    columns=(
        _TRIAL_ID,
        _C("step", "int", "optimiser steps done, from 1", True, minimum=0),
        _C("split", "string", "train or validation", True),
        _C("metric", "string", "loss, learning_rate, grad_norm, step_s, tokens, …", True),
        _C("value", "float", "the value; null when it is not finite"),
    ),
)

MEMORY = Table(
    name="memory",
    row="bytes of one category in one phase of one trial",
    key=("trial_id", "phase", "category"),
    columns=(
        _TRIAL_ID,
        _C("phase", "string", "load, train, evaluate or generate", True),
        _C("category", "string", "weights, gradients, optimizer, activations, other, peak", True),
        _C("bytes", "int", "bytes", minimum=0),
    ),
)

LATENCY = Table(
    name="latency",
    row="one phase of one inference setting of one trial",
    key=("trial_id", "variant", "batch_size", "prompt_tokens", "new_tokens", "phase"),
    columns=(
        _TRIAL_ID,
        _C("variant", "string", "plain, merged or unmerged", True),
        _C("batch_size", "int", "sequences at once", True, minimum=1),
        _C("prompt_tokens", "int", "tokens of each prompt", True, minimum=1),
        _C("new_tokens", "int", "tokens generated for each; 0 where nothing is generated", True, minimum=0),
        _C(
            "phase",
            "string",
            "prefill (the whole prompt), decode (each further token) or predict (one classification)",
            True,
        ),
        _C("p50_s", "float", "median seconds of one prefill, one decoded token or one prediction", minimum=0),
        _C("p95_s", "float", "95th percentile of the same", minimum=0),
        _C("tokens_per_s", "float", "tokens per second of all sequences together", minimum=0),
    ),
)

GENERATIONS = Table(
    name="generations",
    row="one answer of one tuned model to one test example",
    key=("trial_id", "example"),
    columns=(
        _TRIAL_ID,
        _C("example", "int", "index of the example in the test split", True, minimum=0),
        _C("prompt", "string", "what the model read", True),
        _C("output", "string", "what it answered, or the label that it chose", True),
        _C("reference", "string", "the expected answer; several are joined by ' ||| '", True),
    ),
)

EXAMPLE_SCORES = Table(
    name="example_scores",
    row="what one example adds to one metric of one trial on one split",
    key=("trial_id", "split", "example", "metric"),
    columns=(
        _TRIAL_ID,
        _C("split", "string", "validation, test or, of a suite of probes, 'NAME_change'", True),
        _C(
            "example",
            "string",
            "id that follows from the example's text, the same in every trial and run; examples from one source share "
            "what stands before the hyphen",
            True,
        ),
        _C(
            "metric",
            "string",
            "name of the metric; with a dot and another name, one of its sufficient statistics, such as bleu.tokens",
            True,
        ),
        _C(
            "value",
            "float",
            "a number whose mean over the examples is the metric: the example's own score, or its jackknife "
            "pseudo-value where the metric is none of single examples (BLEU, F1, perplexity); or the statistic",
        ),
    ),
)
