"""Score a tuned model on a split: predictions of a classifier, label likelihoods or greedy answers of a decoder."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import torch

from harness.tasks.answer_display import SHOWN_ANSWERS, first_reference, html_lines, html_table, shortened
from harness.tasks.cloze import read_answers
from harness.tasks.data import clusters, example_ids
from harness.tasks.decoding import answer_text, greedy
from harness.tasks.encode import cut_prompt, end_id, free_answer_tokens, prompt_text
from harness.tasks.likelihood import prefers_chosen, text_loss
from harness.tasks.metrics import METRICS, Score, score
from harness.tasks.ranking import pick_choices, rank_labels

if TYPE_CHECKING:
    from harness.networks.tuned import Tuned
    from harness.tasks.data import Example, TaskData


@dataclass(frozen=True)
class Answer:
    """The answer of a model to one example."""

    prompt: str
    output: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """Scores of one split, the task's primary metric first, and the answers behind them."""

    split: str
    scores: tuple[Score, ...]
    answers: tuple[Answer, ...]
    examples: tuple[str, ...] = ()
    """Ids of the examples, in the order of what each adds to a score."""

    @property
    def primary(self) -> Score:
        """The task's primary metric; of a reward model, which gives no answers, its accuracy."""
        return self.scores[0]

    def __repr__(self) -> str:
        """Scores, then the first answers with their references."""
        shown = [
            f"\n{shortened(a.output)}\n  expected: {shortened(first_reference(a.references))}"
            for a in self.answers[:SHOWN_ANSWERS]
        ]
        return "\n".join([self.split, *map(str, self.scores), *shown])

    def _repr_html_(self) -> str:
        """The same for Jupyter."""
        rows = [(a.output, first_reference(a.references)) for a in self.answers[:SHOWN_ANSWERS]]
        table = html_table(("answer", "expected"), rows) if rows else ""
        return f"<b>{escape(self.split)}</b><br>{html_lines(self.scores)}{table}"


def _chunks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def _by_length(lengths: Sequence[int]) -> list[int]:
    """Indices from short to long: batches of similar lengths waste little on padding."""
    return sorted(range(len(lengths)), key=lambda i: (lengths[i], i))


def predict_labels(tuned: Tuned, examples: Sequence[Example], max_length: int, batch_size: int = 32) -> list[int]:
    """Label index of each example by an encoder's head."""
    labels: list[int] = head_outputs(tuned, examples, max_length, batch_size).argmax(-1).tolist()
    return labels


@torch.no_grad()
def head_outputs(tuned: Tuned, examples: Sequence[Example], max_length: int, batch_size: int = 32) -> torch.Tensor:
    """What an encoder's head gives for each example, on the CPU, of shape (examples, outputs)."""
    tokenizer = tuned.base.tokenizer
    order = _by_length([len(e.text) for e in examples])
    outputs: list[torch.Tensor] = [torch.empty(0)] * len(examples)
    for part in _chunks(len(order), batch_size):
        rows = order[part]
        batch = tokenizer(
            [examples[i].text for i in rows],
            padding=True,
            truncation=True,
            max_length=max_length,
            return_tensors="pt",
        ).to(tuned.base.device)
        logits = tuned.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        for row, output in zip(rows, logits.float().cpu(), strict=True):
            outputs[row] = output
    return torch.stack(outputs)


def generate_ids(
    tuned: Tuned, prompts: Sequence[Sequence[int]], max_new_tokens: int, batch_size: int = 64
) -> list[list[int]]:
    """Greedy continuations of token ids, up to but not including the first token that ends an answer."""
    answers: list[list[int]] = greedy(tuned, prompts, max_new_tokens, stop_ids(tuned), batch_size)
    return answers


def stop_ids(tuned: Tuned) -> list[int]:
    """Every token that ends an answer: the closing token of training, and those of the checkpoint."""
    named = tuned.model.generation_config.eos_token_id
    several = named if isinstance(named, list | tuple) else [named]
    tokenizer = tuned.base.tokenizer
    return sorted({end_id(tokenizer), *(i for i in (tokenizer.eos_token_id, *several) if i is not None)})


def generate(tuned: Tuned, prompts: Sequence[str], max_new_tokens: int, max_length: int) -> list[str]:
    """Greedy answers, without special tokens and outer white space; each prompt is cut as in training."""
    tokenizer, apart = tuned.base.tokenizer, tuned.base.reads_apart
    room = free_answer_tokens(max_new_tokens, max_length)
    cut = [cut_prompt(tokenizer, one, max_length, room, apart) for one in prompts]
    answers = generate_ids(tuned, cut, max_new_tokens)
    return [answer_text(tokenizer, ids) for ids in answers]


def evaluate(tuned: Tuned, data: TaskData, split: str, max_length: int) -> Evaluation:
    """Every metric of the task on ``split`` ('validation' or 'test'); the model is put into evaluation mode.

    Of a preference task, 'accuracy' is the share of pairs whose better answer the model rates higher; metrics of text
    compare what it generates with the better answer. A model with a scalar output has but the first; its answers are
    those of the pair that it rates higher.
    """
    return evaluate_splits(tuned, data, (split,), max_length)[split]


def evaluate_splits(tuned: Tuned, data: TaskData, splits: Sequence[str], max_length: int) -> dict[str, Evaluation]:
    """:func:`evaluate` on several splits, by their names; free answers of all are generated together.

    Their batches are fuller, and what all prompts begin with is read once.
    """
    tuned.model.eval()
    outputs = _free_answers(tuned, data, splits, max_length)
    return {split: _evaluated(tuned, data, split, max_length, outputs.get(split, [])) for split in splits}


def _free_answers(tuned: Tuned, data: TaskData, splits: Sequence[str], max_length: int) -> dict[str, list[str]]:
    """What a language model answers to the prompts of each split; nothing for other models and tasks."""
    if tuned.base.scalar or tuned.base.has_head or not data.spec.is_written:
        return {}
    prompts = {split: [example.prompt for example in getattr(data, split)] for split in splits}
    answers = iter(generate(tuned, list(itertools.chain(*prompts.values())), data.spec.max_new_tokens, max_length))
    return {split: list(itertools.islice(answers, len(several))) for split, several in prompts.items()}


def _evaluated(tuned: Tuned, data: TaskData, split: str, max_length: int, outputs: Sequence[str]) -> Evaluation:
    examples: Sequence[Example] = getattr(data, split)
    match data.kind:
        case "classification":
            return _of_labels(tuned, data, split, examples, max_length)
        case "regression":
            return _of_numbers(tuned, data, split, examples, max_length, outputs)
        case "multiple_choice":
            return _of_choices(tuned, data, split, examples, max_length)
        case "generation":
            return _of_answers(tuned, data, split, examples, outputs, data.spec.metrics)
        case "cloze":
            return _of_clozes(tuned, data, split, examples, max_length)
        case "preference":
            return _of_pairs(tuned, data, split, examples, max_length, outputs)
        case "corpus":
            loss = text_loss(tuned, [e.completion for e in examples], max_length)
            counted = {"perplexity": loss.tokens, "bits_per_byte": loss.bytes}
            of_source = clusters(examples)
            scores = [score(name, loss.nats, counted[name], of_source) for name in data.spec.metrics]
            return Evaluation(split, _primary_first(data, scores), (), example_ids(examples))


def majority_score(data: TaskData) -> float | None:
    """What a model gets that reads nothing, by the primary metric; None where answers are free.

    It is the most that one label for every test example gets; of multiple choice, what picking at random gets; of
    numbers, what their mean gets (None for a correlation).
    """
    if data.kind == "regression":
        targets = [example.target for example in data.test if example.target is not None]
        return score(data.spec.primary_metric, [statistics.fmean(targets)] * len(targets), targets).value
    if data.kind == "multiple_choice":
        return statistics.fmean(1 / len(example.candidates) for example in data.test)
    if data.kind != "classification":
        return None
    expected = [(data.label_words[e.label],) for e in data.test if e.label is not None]
    primary = data.spec.primary_metric
    options = data.spec.metric_options
    values = [score(primary, [label] * len(expected), expected, None, options).value for label in data.label_words]
    known = [value for value in values if value is not None]
    return (max if METRICS[primary].higher_is_better else min)(known) if known else None


def _of_labels(tuned: Tuned, data: TaskData, split: str, examples: Sequence[Example], max_length: int) -> Evaluation:
    head, labels = tuned.base.has_head, data.label_words
    predicted = predict_labels(tuned, examples, max_length) if head else rank_labels(tuned, examples, max_length)
    outputs = [labels[label] for label in predicted]
    prompts = [e.text if head else prompt_text(tuned.base.tokenizer, e.prompt) for e in examples]
    # Labels are compared as their words, whatever sentence a decoder learns them in.
    expected = [(labels[e.label],) for e in examples if e.label is not None]
    return _scored(data, split, examples, expected, prompts, outputs, data.spec.metrics)


def _of_numbers(
    tuned: Tuned, data: TaskData, split: str, examples: Sequence[Example], max_length: int, outputs: Sequence[str]
) -> Evaluation:
    expected = [(repr(e.target),) for e in examples]
    if not tuned.base.has_head:
        prompts = [prompt_text(tuned.base.tokenizer, e.prompt) for e in examples]
        return _scored(data, split, examples, expected, prompts, outputs, data.spec.metrics)
    standard = head_outputs(tuned, examples, max_length)[:, 0].tolist()
    outputs = [f"{data.scale.original(one):.9g}" for one in standard]  # all that float32 can tell apart
    return _scored(data, split, examples, expected, [e.text for e in examples], outputs, data.spec.metrics)


def _of_choices(tuned: Tuned, data: TaskData, split: str, examples: Sequence[Example], max_length: int) -> Evaluation:
    picks = dict(zip(("accuracy", "accuracy_norm"), pick_choices(tuned, examples, max_length), strict=True))
    # By their texts: a list may hold the right one twice.
    expected = [e.candidates[e.label or 0] for e in examples]
    texts = {
        metric: [e.candidates[pick] for e, pick in zip(examples, several, strict=True)]
        for metric, several in picks.items()
    }
    prompts = [prompt_text(tuned.base.tokenizer, e.prompt) for e in examples]
    return Evaluation(
        split=split,
        scores=_primary_first(
            data, [score(one, texts[one], expected, clusters(examples)) for one in data.spec.metrics]
        ),
        answers=tuple(map(Answer, prompts, texts[data.spec.primary_metric], [e.references for e in examples])),
        examples=example_ids(examples),
    )


def _of_answers(
    tuned: Tuned,
    data: TaskData,
    split: str,
    examples: Sequence[Example],
    outputs: Sequence[str],
    metrics: Sequence[str],
) -> Evaluation:
    prompts = [prompt_text(tuned.base.tokenizer, e.prompt) for e in examples]
    return _scored(data, split, examples, [e.references for e in examples], prompts, outputs, metrics)


def _of_clozes(tuned: Tuned, data: TaskData, split: str, examples: Sequence[Example], max_length: int) -> Evaluation:
    read = read_answers(tuned, examples, max_length, data.spec.max_new_tokens)
    values: dict[str, tuple[Sequence[object], Sequence[object]]] = {
        "cloze_accuracy": ([one.is_likeliest for one in read], [True] * len(read)),
        "cloze_perplexity": ([one.nats for one in read], [1] * len(read)),
    }
    scores = [score(name, *values[name], clusters(examples)) for name in data.spec.metrics]
    prompts = [prompt_text(tuned.base.tokenizer, e.prompt) for e in examples]
    answers = tuple(map(Answer, prompts, [one.likeliest for one in read], [e.references for e in examples]))
    return Evaluation(split, _primary_first(data, scores), answers, example_ids(examples))


def _of_pairs(
    tuned: Tuned, data: TaskData, split: str, examples: Sequence[Example], max_length: int, outputs: Sequence[str]
) -> Evaluation:
    preferred = prefers_chosen(tuned, examples, max_length, data.spec.max_new_tokens)
    picks = ["chosen" if right else "rejected" for right in preferred]
    accuracy = score("accuracy", picks, ["chosen"] * len(picks), clusters(examples))
    if tuned.base.scalar:
        rated = zip(examples, preferred, strict=True)
        answers = tuple(
            Answer(e.prompt, (e.completion if right else e.rejected) or "", e.references) for e, right in rated
        )
        return Evaluation(split, (accuracy,), answers, example_ids(examples))
    generated = _of_answers(tuned, data, split, examples, outputs, data.spec.metrics_of_text)
    scores = _primary_first(data, [accuracy, *generated.scores])
    return Evaluation(split, scores, generated.answers, generated.examples)


def _primary_first(data: TaskData, scores: Sequence[Score]) -> tuple[Score, ...]:
    return tuple(sorted(scores, key=lambda one: one.metric != data.spec.primary_metric))


def _scored(
    data: TaskData,
    split: str,
    examples: Sequence[Example],
    references: Sequence[tuple[str, ...]],
    prompts: Sequence[str],
    outputs: Sequence[str],
    metrics: Sequence[str],
) -> Evaluation:
    answers = [data.spec.scored_part(output) for output in outputs]
    expected = [tuple(data.spec.scored_part(one) for one in several) for several in references]
    of_source = clusters(examples)
    options: dict[str, object] = {**data.spec.metric_options}
    if data.spec.database is not None:
        options["databases"] = [data.spec.database_of(e.fields) for e in examples]
    return Evaluation(
        split=split,
        scores=_primary_first(data, [score(name, answers, expected, of_source, options) for name in metrics]),
        answers=tuple(map(Answer, prompts, outputs, references)),
        examples=example_ids(examples),
    )
