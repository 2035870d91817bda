"""Mistakes in a task that its data cannot show: parts that do not go together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.errors import unknown
from harness.tasks import keys
from harness.tasks.metrics import metric_info
from harness.tasks.templates import placeholders

if TYPE_CHECKING:
    from harness.tasks.spec import TaskSpec

_OF_LABELS = ("accuracy", "f1", "macro_f1", "matthews_correlation", "exact_match")
_OF_TEXTS = ("exact_match", "token_f1", "rouge_1", "rouge_2", "rouge_l", "bleu", "chrf", "nist", "meteor", "cider")
_OF_QUERIES = ("logical_form", "sql_execution")

#: The metrics that say something about each kind of task.
_METRICS = {
    "classification": _OF_LABELS,
    "regression": ("pearson", "spearman", "mse", "numeric_answers"),
    "multiple_choice": ("accuracy", "accuracy_norm"),
    "generation": (*_OF_TEXTS, *_OF_QUERIES, "accuracy", "macro_f1", "matthews_correlation"),
    "cloze": ("cloze_accuracy", "cloze_perplexity"),
    "preference": ("accuracy", *_OF_TEXTS),
    "corpus": ("perplexity", "bits_per_byte"),
}

#: The kinds of tasks that name a field with the right answer.
_WITH_LABEL = ("classification", "regression", "multiple_choice")


def check(spec: TaskSpec) -> None:
    """Raise ValueError, or InputError for a name that does not exist, for the first mistake in ``spec``."""
    _check_metrics(spec)
    _check_labels(spec)
    _check_number(spec)
    _check_choices(spec)
    _check_texts(spec)
    _check_fields(spec)


def _check_metrics(spec: TaskSpec) -> None:
    for name in spec.metrics:
        metric_info(name)
        if name not in _METRICS[spec.kind]:
            raise ValueError(
                f"metrics: '{name}' does not rate a {spec.kind} task; valid: {', '.join(_METRICS[spec.kind])}"
            )
    if ("sql_execution" in spec.metrics) != (spec.database is not None):
        raise ValueError("metrics: 'sql_execution' needs 'database', what a query runs in, and no other metric does")
    if len(set(spec.metrics)) < len(spec.metrics):
        raise ValueError("metrics: a name is there twice")
    if spec.primary_metric not in spec.metrics:
        raise unknown("primary_metric", spec.primary_metric, spec.metrics)
    if spec.answer_pattern is not None and re.compile(spec.answer_pattern).groups < 1:
        raise ValueError("answer_pattern: put the part that is scored in parentheses")
    if spec.answer_pattern is not None and (spec.has_one_answer or spec.is_corpus):
        raise ValueError(f"answer_pattern: a {spec.kind} task has no free answers")


def _check_labels(spec: TaskSpec) -> None:
    if spec.kind != "classification":
        for name in ("labels", "positive", *(() if spec.kind in _WITH_LABEL else ("label",))):
            if getattr(spec, name):
                raise ValueError(f"{name}: belongs to kind 'classification', not '{spec.kind}'")
        if "label_word" in spec.used_fields:
            raise ValueError("completion: a task without labels needs one, such as '{answer}'")
        return
    if spec.label is None or len(spec.labels) < 2:
        raise ValueError("a classification task needs 'label' (a field) and at least two 'labels'")
    words = [word.strip() for word in spec.labels.values()]
    if not all(words):
        raise ValueError("labels: a label's word is empty; give each label a word")
    if len(set(words)) < len(words):
        raise ValueError("labels: two labels have the same word")
    if len(set(map(keys.plain, spec.labels))) < len(spec.labels):
        raise ValueError("labels: two keys are one and the same label, such as 1 and 1.0")
    if spec.positive is not None and spec.positive not in spec.labels:
        raise unknown("positive", spec.positive, spec.labels)
    if "f1" in spec.metrics and spec.positive is None and len(spec.labels) > 2:
        raise ValueError("metrics: 'f1' is about one label; name it in 'positive', or rate all with 'macro_f1'")
    if "label_word" not in placeholders(spec.completion):
        raise ValueError("completion: it must hold {label_word}, the word of the right label")
    _check_hidden(spec, "label_word")


def _check_number(spec: TaskSpec) -> None:
    if spec.kind != "regression":
        if spec.step is not None:
            raise ValueError(f"step: belongs to kind 'regression', not '{spec.kind}'")
        return
    if spec.label is None:
        raise ValueError("a regression task needs 'label': the field with the number")
    if "number" not in placeholders(spec.completion):
        raise ValueError("completion: it must hold {number}, the right number")
    _check_hidden(spec, "number")


def _check_hidden(spec: TaskSpec, filled_in: str, what: str = "label") -> None:
    """Nothing that a model reads may hold the label, or what is filled in for it; nor may what all answers share."""
    column = spec.fields.get(spec.label or "", spec.label)
    copies = {spec.label or "", *(name for name, of in spec.fields.items() if of == column)}
    for part in ("prompt", "text", "input", "completion"):
        shown = {*(spec.input if part == "input" else placeholders(getattr(spec, part) or ""))}
        if part != "completion" and filled_in in shown:
            raise ValueError(
                f"{part}: it gives the {what} away: {{{filled_in}}} is the right one; if a column is called so, "
                f"give it another name, as in fields: {{other: {filled_in}}}"
            )
        if shared := shown & copies:
            raise ValueError(f"{part}: it gives the {what} away; leave '{min(shared)}' to 'label'")


def _check_choices(spec: TaskSpec) -> None:
    if spec.kind != "multiple_choice":
        if spec.choices or spec.choice_keys:
            name = "choices" if spec.choices else "choice_keys"
            raise ValueError(f"{name}: belongs to kind 'multiple_choice', not '{spec.kind}'")
        return
    if not spec.choices or (not isinstance(spec.choices, str) and len(spec.choices) < 2):
        raise ValueError("a multiple-choice task needs 'choices': two templates or more, or the field with their list")
    if spec.choice_keys and spec.label is None:
        raise ValueError("choice_keys: without 'label' the first choice is right, and none has a key")
    keys, several = spec.choice_keys, spec.choices
    if not isinstance(keys, str) and keys and not isinstance(several, str) and len(keys) != len(several):
        raise ValueError(f"choice_keys: {len(keys)} keys for {len(several)} choices")
    if not isinstance(keys, str) and len(set(keys)) < len(keys):
        raise ValueError("choice_keys: a key is there twice")
    if "choice" not in placeholders(spec.completion):
        raise ValueError("completion: it must hold {choice}, the text of a choice")
    if spec.label is not None:
        _check_hidden(spec, "choice", "answer")


def _check_texts(spec: TaskSpec) -> None:
    answer, prompt = placeholders(spec.completion), placeholders(spec.prompt)
    if not spec.prompt and not spec.is_corpus and "prompt" not in spec.model_fields_set:
        raise ValueError("'prompt' is missing")
    if spec.dialogue is not None and spec.kind not in ("generation", "preference"):
        raise ValueError(f"dialogue: a {spec.kind} task has no answers; it belongs to generation and preference")
    if not answer:
        raise ValueError("completion: it holds no field, so every answer would be the same; write '{column}'")
    if spec.is_corpus:
        if spec.prompt:
            raise ValueError("prompt: a corpus has none; put all of its text into 'completion'")
    elif not prompt:
        raise ValueError("prompt: it holds no field, so every input would be the same; write '{column}'")
    elif set(answer) <= set(prompt):
        raise ValueError(f"prompt: it gives the answer away; leave '{answer[0]}' to 'completion'")
    if spec.text is not None and not placeholders(spec.text):
        raise ValueError("text: it holds no field, so every input would be the same; write '{column}'")
    if (spec.kind == "preference") != (spec.rejected is not None):
        raise ValueError("'rejected' belongs to kind 'preference', and that kind needs it")
    if spec.rejected is not None and spec.rejected.strip() == spec.completion.strip():
        raise ValueError("rejected: it is the same as 'completion'; name the worse answer's column")


def _check_fields(spec: TaskSpec) -> None:
    for name in spec.join:
        if name not in {*spec.used_fields, *spec.extract}:
            raise unknown("join", name, {*spec.used_fields, *spec.extract})
    for name in spec.cluster:
        if name not in spec.used_fields:
            raise unknown("cluster", name, spec.used_fields)
    for name in spec.optional or ():
        if name not in spec.used_fields:
            raise unknown("optional", name, spec.used_fields)
        if name == spec.label:
            raise ValueError(f"optional: '{name}' is the label, and every row needs one")
    for part in ("completion", "rejected"):
        names = placeholders(getattr(spec, part) or "")
        if names and set(names) <= set(spec.optional or ()):
            raise ValueError(f"optional: '{names[0]}' is all of '{part}', and every row needs one")
    for field, expression in spec.extract.items():
        if not re.compile(expression).groupindex:
            raise ValueError(f"extract: {field}: the expression has no named group, such as (?P<answer>.+)")
    if spec.references is not None and (
        spec.kind != "generation" or spec.references not in placeholders(spec.completion)
    ):
        raise ValueError(f"references: '{spec.references}' must be a field in the completion of a generation task")
