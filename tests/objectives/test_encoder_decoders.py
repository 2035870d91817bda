"""T5 and BART: the encoder reads the prompt, the decoder the answer; what is true of every method there, to the bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers import checkpoints, toy_tasks
from helpers.checkpoints import CLS, END, PAD
from helpers.lengths import long_after

from harness import catalog, methods, objectives
from harness.errors import InputError
from harness.measure.latency import generation_latency
from harness.models.load import Base, load
from harness.networks.tuned import Tuned
from harness.objectives import sft
from harness.tasks.data import Example
from harness.tasks.encode import Encoded, encode_examples
from harness.tasks.evaluate import evaluate, generate, generate_ids
from harness.tasks.likelihood import prefers_chosen
from harness.tasks.logprobs import IGNORED, completion_batch, sequence_logprobs
from harness.tasks.ranking import rank_labels
from harness.training.token_loss import token_loss

pytestmark = pytest.mark.slow

FAMILIES = tuple(checkpoints.ENCODER_DECODERS)
#: Every method that trains, small; BitDelta starts from a full fine-tune and stands alone.
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "full_top_k": {"k": 1},
    "head": {},
    "bitfit": {},
    "adapter": {"bottleneck": 4},
    "prompt": {"num_virtual_tokens": 3},
    "prefix": {"num_virtual_tokens": 3},
    "p_tuning": {"num_virtual_tokens": 3, "encoder_hidden_size": 16},
    "lora": {"r": 2},
    "dora": {"r": 2},
    "ia3": {},
    "qlora": {"r": 2},
    "peft": {},
}
UNCHANGED_AT_FIRST = ("full", "full_top_k", "head", "bitfit", "adapter", "lora", "dora", "ia3")
MERGEABLE = ("lora", "dora", "ia3")
ROWS = [Encoded((72, 101, 108, END), (111, 107, END)), Encoded((72, END), (110, 111, 33, 33, END))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("encoder-decoders")
    auto = transformers.AutoModelForSeq2SeqLM
    return {name: checkpoints.save(place / name, name, auto) for name in FAMILIES}


@pytest.fixture(params=FAMILIES)
def base(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Base:
    return load(str(folders[request.param]), device="cpu")


def batch_of(base: Base, rows: list[Encoded] = ROWS) -> dict[str, torch.Tensor]:
    return completion_batch(rows, PAD, start=base.decoder_start_id)


@torch.no_grad()
def logits(tuned: Tuned) -> torch.Tensor:
    inputs = {name: value for name, value in batch_of(tuned.base).items() if name != "labels"}
    output: torch.Tensor = tuned.model(**inputs).logits
    return output


def settings(rate: float = 1e-2, **budget: int) -> Any:
    return toy_tasks.settings(rate, **budget)


WORDS = ("ant", "bee", "cow", "dog")
ANSWERS = toy_tasks.data("generation", [toy_tasks.example(f"say {w}", w.upper()) for w in WORDS])
PAIRS = toy_tasks.data("preference", toy_tasks.PAIRS)
LABELS = ("yes", "not at all")


def _labelled(text: str, label: int) -> Example:
    prompt = f"{text}?"
    return Example(prompt, text, LABELS[label], (LABELS[label],), label, None, {}, LABELS)


CLASSES = toy_tasks.data(
    "classification",
    [_labelled(word, number % 2) for number, word in enumerate(WORDS)],
    label="c",
    labels={"0": LABELS[0], "1": LABELS[1]},
    completion="{label_word}",
)


def test_all_methods_that_train_are_tried() -> None:
    able = {m.name for m in catalog.METHODS.values() if m.trains and "encoder_decoder" in m.model_kinds}
    assert able == {*CASES, "bitdelta"}


def test_what_the_two_parts_read(base: Base) -> None:
    start = {"t5": PAD, "bart": END}[base.spec.architecture]
    assert (base.kind, base.peft_task_type, base.decoder_start_id) == ("encoder_decoder", "SEQ_2_SEQ_LM", start)
    batch = {name: value.tolist() for name, value in batch_of(base).items()}
    assert batch == {
        "input_ids": [[72, 101, 108, END], [72, END, PAD, PAD]],
        "attention_mask": [[1, 1, 1, 1], [1, 1, 0, 0]],
        "decoder_input_ids": [[start, 111, 107, END, PAD, PAD], [start, 110, 111, 33, 33, END]],
        "decoder_attention_mask": [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]],
        "labels": [[IGNORED, 111, 107, END, IGNORED, IGNORED], [IGNORED, 110, 111, 33, 33, END]],
    }


def test_prompt_and_answer_are_texts_of_their_own() -> None:
    """BART's and T5's own tokenizers put tokens around every text, those of the answer included."""
    byt5 = transformers.ByT5Tokenizer(extra_ids=0)
    example = CLASSES.train[0]
    (row,) = encode_examples(byt5, [example], 200, 8, apart=True)
    assert list(row.prompt) == byt5(example.prompt.rstrip(" "))["input_ids"] and row.prompt[-1] == byt5.eos_token_id
    assert list(row.completion) == byt5(example.completion)["input_ids"]
    (short,) = encode_examples(byt5, [example], 16, 8, apart=True)
    assert len(short.prompt) + len(short.completion) <= 16 and short.prompt[-1] == byt5.eos_token_id


def test_the_loss_is_transformers_own(base: Base) -> None:
    model = base.build()
    ours, _ = token_loss(model, batch_of(base))
    width = max(len(row.completion) for row in ROWS)
    labels = torch.tensor([[*row.completion, *[IGNORED] * (width - len(row.completion))] for row in ROWS])
    theirs = model(**{k: v for k, v in batch_of(base).items() if not k.startswith("decoder")} | {"labels": labels}).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    total, tokens = sequence_logprobs(model, batch_of(base))
    assert -total.sum().item() / tokens.sum().item() == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize("method", ["full", "adapter", "prompt", "prefix", "lora"])
def test_padding_changes_nothing(base: Base, method: str) -> None:
    model = methods.apply(method, base, **CASES[method]).model
    with torch.no_grad():
        together, _ = sequence_logprobs(model, batch_of(base))
        alone = torch.cat([sequence_logprobs(model, batch_of(base, [row]))[0] for row in ROWS])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-4)
    tuned = Tuned(base, model)
    prompts = [list(row.prompt) for row in ROWS]
    both = generate_ids(tuned, prompts, 6)
    assert both == [generate_ids(tuned, [one], 6)[0] for one in prompts]


@pytest.mark.parametrize("method", UNCHANGED_AT_FIRST)
def test_nothing_changes_at_first(base: Base, method: str) -> None:
    untouched = logits(Tuned(base, base.build()))
    torch.testing.assert_close(logits(methods.apply(method, base, **CASES[method])), untouched, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", long_after(5, CASES))
def test_training_moves_what_is_declared_and_the_checkpoint_keeps_it(base: Base, method: str, tmp_path: Path) -> None:
    tuned = methods.apply(method, base, **CASES[method])
    before = {name: p.detach().clone() for name, p in tuned.model.named_parameters()}
    trainable = set(tuned.trainable)
    history = objectives.fit("sft", tuned, ANSWERS, settings(epochs=3))
    after = dict(tuned.model.named_parameters())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    # The bias of a key shifts all scores of a query alike, so softmax forgets it.
    assert moved <= trainable and {n for n in trainable - moved if ".k." not in n and "k_proj" not in n} == set()
    assert history.losses[-1] == history.losses[-1] and history.steps[0].tokens > 0
    tuned.save(tmp_path)
    torch.testing.assert_close(logits(methods.load(base, tmp_path)), logits(tuned), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", MERGEABLE)
def test_merged_equals_unmerged(base: Base, method: str) -> None:
    tuned = methods.apply(method, base, **CASES[method])
    objectives.fit("sft", tuned, ANSWERS, settings())
    expected = logits(tuned)
    assert tuned.merge is not None
    with tuned.merge() as merged:
        torch.testing.assert_close(logits(Tuned(base, merged)), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(logits(tuned), expected)


@pytest.mark.slow
def test_bitdelta_distils_from_a_full_fine_tune(base: Base, tmp_path: Path) -> None:
    full = methods.apply("full", base)
    objectives.fit("sft", full, ANSWERS, settings(1e-3))
    full.save(tmp_path)
    tuned = methods.apply("bitdelta", base, parent=str(tmp_path))
    distance = (logits(tuned) - logits(full)).square().mean()
    assert distance < (logits(Tuned(base, base.build())) - logits(full)).square().mean()
    history = objectives.fit("sft", tuned, ANSWERS, settings(1e-3))
    assert history.losses[-1] >= 0 and tuned.merge is not None
    expected = logits(tuned)
    with tuned.merge() as merged:
        torch.testing.assert_close(logits(Tuned(base, merged)), expected, rtol=1e-4, atol=1e-4)


def test_bitfit_on_t5_adds_biases_to_the_body_alone(folders: dict[str, Path]) -> None:
    tuned = methods.apply("bitfit", load(str(folders["t5"]), device="cpu"))
    # Per layer: 4 of self-attention and 3 of the gated feed-forward part; 4 more where a decoder layer crosses.
    assert tuned.note == f"{2 * 7 + 2 * 11} zero-initialised biases added"
    assert (
        "lm_head.bias" not in tuned.trainable and not torch.cat([p.flatten() for p in tuned.trainable.values()]).any()
    )


def test_prompts_stand_before_the_encoders_text_alone(base: Base) -> None:
    tuned = methods.apply("prompt", base, num_virtual_tokens=3)
    assert tuned.trainable_params == 3 * 32
    prefix = methods.apply("prefix", base, num_virtual_tokens=3)
    assert prefix.trainable_params == 3 * 2 * 2 * 32, "keys and values of each of the decoder's two layers"


def test_an_answer_ends_where_it_ends(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = Tuned(base, base.build())
    free = generate_ids(tuned, [[72, END]], 5)[0]
    assert 0 < len(free) <= 5
    monkeypatch.setitem(base.__dict__, "end_token_ids", (free[0],))
    stopped = Tuned(base, base.build())
    assert generate_ids(stopped, [[72, END]], 5)[0] == []
    assert generate(tuned, ["Hi", "Hello there"], 5, 48) == [
        generate(tuned, [t], 5, 48)[0] for t in ("Hi", "Hello there")
    ]


@pytest.mark.parametrize("method", ["full", "prompt", "prefix"])
def test_prefill_and_decode_are_timed(base: Base, method: str) -> None:
    model = methods.apply(method, base, **CASES[method]).model
    rows = generation_latency(model, base.device, 250, prompt_tokens=4, new_tokens=3, repeats=1)
    assert [(row.phase, row.p50_s > 0) for row in rows] == [("prefill", True), ("decode", True)]


def test_labels_are_ranked_by_their_likelihood(base: Base) -> None:
    data = CLASSES
    tuned = Tuned(base, base.build())
    examples = data.test[:4]
    best = []
    for example in examples:
        rows = [encode_examples(base.tokenizer, [replace(example, completion=one)], 64, 8, apart=True)[0]
                for one in example.candidates]  # fmt: skip
        with torch.no_grad():
            best.append(
                int(torch.cat([sequence_logprobs(tuned.model, batch_of(base, [row]))[0] for row in rows]).argmax())
            )
    assert rank_labels(tuned, examples, 64) == best
    assert prefers_chosen(tuned, PAIRS.test[:3], 64, 8) == prefers_chosen(tuned, PAIRS.test[:3], 64, 8, batch_size=1)


@pytest.mark.slow
def test_it_learns_to_classify_by_text(base: Base) -> None:
    data = CLASSES
    tuned = methods.apply("full", base)
    rate = {"t5": 2e-2, "bart": 1e-2}[base.spec.architecture]
    history = objectives.fit("classification", tuned, data, settings(rate, epochs=60, batch_size=4))
    assert history.losses[-1] < 0.2 * history.losses[0]
    assert evaluate(tuned, data, "test", 64).primary.value == 1


@pytest.mark.parametrize("args", [{"packing": True}, {"dialogue_field": "turns"}])
def test_what_needs_one_row_is_told(base: Base, args: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="reads prompts and answers apart; it needs a decoder"):
        sft.fit(methods.apply("full", base), ANSWERS, settings(), **args)


@pytest.mark.slow
def test_the_counted_tokens_are_those_of_both_parts(base: Base) -> None:
    tuned = methods.apply("lora", base, r=2)
    data = ANSWERS
    rows = encode_examples(
        base.tokenizer, data.train, settings().budget.max_length, data.spec.max_new_tokens, apart=True
    )
    history = objectives.fit("sft", tuned, data, settings())
    expected = sum(len(row.prompt) + 1 + len(row.completion) for row in rows)
    assert sum(step.tokens for step in history.steps) == expected * settings().budget.epochs


def test_a_checkpoint_with_a_start_token_before_answers(tmp_path: Path) -> None:
    """BART's tokenizer puts a start before every text, so the answer it learns has one."""
    tokenizer = checkpoints.byte_tokenizer()
    tokenizer._tokenizer.post_processor = checkpoints.around("<cls>", CLS, "</s>", END)
    auto = transformers.AutoModelForSeq2SeqLM
    base = load(str(checkpoints.save(tmp_path, "bart", auto, tokenizer=tokenizer)), device="cpu")
    (row,) = encode_examples(base.tokenizer, ANSWERS.train[:1], 200, 8, apart=True)
    assert (row.prompt[0], row.prompt[-1], row.completion[0], row.completion[-1]) == (CLS, END, CLS, END)
    assert json.loads((tmp_path / "config.json").read_text())["decoder_start_token_id"] == base.decoder_start_id
