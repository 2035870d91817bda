"""Virtual tokens, prefixes, probes and examples in context: what a model then reads, put before it by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace as Namespace
from typing import Any

import pytest
import torch
from helpers import toy_tasks as toy
from torch import nn

from harness import methods
from harness.errors import InputError
from harness.methods.baseline import LabelSimilarity, in_context
from harness.methods.head import LinearProbe
from harness.models.load import Base
from harness.models.load import load as load_base
from harness.networks.pooling import mean_pooled
from harness.networks.tuned import Tuned
from harness.tasks.data import TaskData
from harness.tasks.data import load as load_task
from harness.trial import Budget

pytestmark = pytest.mark.slow

WIDTH, KEYS = 32, 16  # of the toy network: four heads of eight, two of them for keys and values; two layers
TEXT = torch.tensor([[70, 71, 72, 73]])


@pytest.fixture(scope="module")
def base() -> Base:
    return toy.base()


def prompt_of(tuned: Tuned) -> Any:
    return tuned.model.prompt_encoder["default"]


@torch.no_grad()
def logits(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    answer: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return answer


# --- virtual tokens --------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_prompt_of_a_words_embeddings_is_that_word_before_the_text(base: Base) -> None:
    tuned = methods.apply("prompt", base, num_virtual_tokens=3, init="text", text="abc")
    ids = torch.tensor([base.tokenizer("abc", add_special_tokens=False)["input_ids"]])
    expected = logits(base.build(), torch.cat([ids, TEXT], dim=1))
    torch.testing.assert_close(logits(tuned.model, TEXT)[:, -4:], expected[:, -4:], rtol=1e-4, atol=1e-4)
    assert set(tuned.trainable) == {"prompt_encoder.default.embedding.weight"}


@pytest.mark.parametrize("text", ["a", "abcdefgh"])
@torch.no_grad()
def test_a_text_is_repeated_or_cut_to_the_number(base: Base, text: str) -> None:
    tuned = methods.apply("prompt", base, num_virtual_tokens=4, init="text", text=text)
    words = (text * 4)[:4]
    ids = base.tokenizer(words, add_special_tokens=False)["input_ids"]
    assert torch.equal(prompt_of(tuned).embedding.weight, base.build().get_input_embeddings().weight[ids])


@torch.no_grad()
def test_a_prompt_starts_from_drawn_tokens_or_from_noise(base: Base) -> None:
    table = base.build().get_input_embeddings().weight

    def rows(**args: Any) -> torch.Tensor:
        weight: torch.Tensor = prompt_of(methods.apply("prompt", base, **args)).embedding.weight
        return weight

    def known(prompt: torch.Tensor) -> list[bool]:
        return [bool((row == table).all(1).any()) for row in prompt]

    assert all(known(rows())) and all(known(rows(init="vocabulary"))) and not any(known(rows(init="random")))
    assert rows().shape == (16, WIDTH) and rows(num_virtual_tokens=7, init="random").shape == (7, WIDTH)
    # Drawn, not the first ones: sixteen of 259 tokens, and others with another seed.
    assert not torch.equal(rows(), table[:16])
    other = prompt_of(methods.apply("prompt", toy.base(seed=2))).embedding.weight
    assert torch.equal(rows(), rows()) and not torch.equal(rows(), other)


def test_a_text_is_needed_where_one_was_asked_for(base: Base) -> None:
    with pytest.raises(InputError, match="must not be empty"):
        methods.apply("prompt", base, init="text", text="")


def shapes(tuned: Tuned) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix("prompt_encoder.default."): tuple(p.shape) for name, p in tuned.trainable.items()}


def test_the_lstm_of_p_tuning_is_bidirectional_with_an_mlp_behind_it(base: Base) -> None:
    sizes: dict[str, Any] = {"num_virtual_tokens": 5, "encoder_hidden_size": 6}
    lstm = methods.apply("p_tuning", base, **sizes)
    head = prompt_of(lstm).lstm_head
    assert (head.num_layers, head.bidirectional, head.hidden_size, head.input_size) == (2, True, 6, WIDTH)
    seen = shapes(lstm)
    assert seen["embedding.weight"] == (5, WIDTH)
    assert (seen["mlp_head.0.weight"], seen["mlp_head.2.weight"]) == ((12, 12), (WIDTH, 12))
    assert prompt_of(methods.apply("p_tuning", base, **sizes, encoder_num_layers=3)).lstm_head.num_layers == 3
    assert shapes(methods.apply("p_tuning", base, **sizes, encoder="mlp")) == {
        "embedding.weight": (5, WIDTH),
        **{"mlp_head.0.weight": (6, WIDTH), "mlp_head.0.bias": (6,)},
        **{"mlp_head.2.weight": (6, 6), "mlp_head.2.bias": (6,)},
        **{"mlp_head.4.weight": (WIDTH, 6), "mlp_head.4.bias": (WIDTH,)},
    }
    default = methods.apply("p_tuning", base)
    assert shapes(default)["embedding.weight"] == (16, WIDTH) and prompt_of(default).lstm_head.hidden_size == 128


@torch.no_grad()
def test_what_p_tunings_encoder_computes_stands_before_the_text(base: Base) -> None:
    tuned = methods.apply("p_tuning", base, num_virtual_tokens=3, encoder_hidden_size=6, encoder="mlp")
    virtual = prompt_of(tuned).mlp_head(prompt_of(tuned).embedding.weight).unsqueeze(0)
    plain = base.build()
    expected = plain(inputs_embeds=torch.cat([virtual, plain.get_input_embeddings()(TEXT)], dim=1)).logits
    torch.testing.assert_close(logits(tuned.model, TEXT)[:, -4:], expected[:, -4:], rtol=1e-4, atol=1e-4)


# --- prefixes --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_prefix_of_a_words_keys_and_values_is_that_word_before_the_text(base: Base) -> None:
    tuned = methods.apply("prefix", base, num_virtual_tokens=3)
    weight = prompt_of(tuned).embedding.weight
    # Keys and values of both layers for each of the three positions.
    assert weight.shape == (3, 2 * 2 * KEYS) and set(tuned.trainable) == {"prompt_encoder.default.embedding.weight"}
    word, plain = torch.tensor([[97, 98, 99]]), base.build()
    cache = plain(input_ids=word, use_cache=True).past_key_values
    parts = [part for layer in cache.layers for part in (layer.keys, layer.values)]
    weight.copy_(torch.stack([part[0].transpose(0, 1).reshape(3, KEYS) for part in parts], dim=1).flatten(1))
    expected = logits(plain, torch.cat([word, TEXT], dim=1))[:, -4:]
    torch.testing.assert_close(logits(tuned.model, TEXT), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("text", "read"), [("abc", "abcab"), ("abcdefg", "abcde")])
def test_a_prefix_that_starts_from_a_text_is_that_text_before_the_input(base: Base, text: str, read: str) -> None:
    """Repeated or cut to five tokens. A byte is a token."""
    ids = torch.tensor([base.tokenizer(read, add_special_tokens=False)["input_ids"]])
    tuned = methods.apply("prefix", base, num_virtual_tokens=5, init="text", text=text)
    expected = logits(base.build(), torch.cat([ids, TEXT], dim=1))[:, -4:]
    torch.testing.assert_close(logits(tuned.model, TEXT), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_prefix_that_starts_from_the_vocabulary_reads_tokens_that_the_seed_draws(base: Base) -> None:
    def start(seed: int) -> torch.Tensor:
        seeded = replace(base, seed=seed)
        return prompt_of(methods.apply("prefix", seeded, num_virtual_tokens=3, init="vocabulary")).embedding.weight

    assert torch.equal(start(1), start(1)) and not torch.allclose(start(1), start(2))
    plain = base.build()
    words, draw = plain.get_input_embeddings().num_embeddings, torch.Generator().manual_seed(1)
    drawn = torch.randint(words, (3,), generator=draw)
    cache = plain(input_ids=drawn.unsqueeze(0), use_cache=True).past_key_values
    torch.testing.assert_close(start(1)[:, :KEYS], cache.layers[0].keys[0].transpose(0, 1).reshape(3, KEYS))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"init": "vocabulary", "prefix_projection": True}, "prefix.init: 'vocabulary' needs a decoder without"),
        ({"init": "text"}, "prefix.text: 'init: text' needs a text"),
    ],
)
def test_a_start_that_cannot_be_is_one_line(base: Base, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        methods.apply("prefix", base, **changes)


def test_a_prefixs_projection_is_an_mlp_of_the_width_that_is_asked_for(base: Base) -> None:
    plain = methods.apply("prefix", base)
    assert shapes(plain) == {"embedding.weight": (16, 2 * 2 * KEYS)}
    tuned = methods.apply("prefix", base, num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=6)
    assert shapes(tuned) == {
        "embedding.weight": (3, KEYS),
        **{"transform.0.weight": (6, KEYS), "transform.0.bias": (6,)},
        **{"transform.2.weight": (2 * 2 * KEYS, 6), "transform.2.bias": (2 * 2 * KEYS,)},
    }
    assert isinstance(prompt_of(tuned).transform[1], nn.Tanh)


def test_the_prompts_of_llama_adapter_stand_in_the_last_layers(base: Base) -> None:
    def prompts(**args: Any) -> dict[str, tuple[int, ...]]:
        names = methods.apply("llama_adapter", base, **args).trainable
        return {n.split("layers.")[1][0]: tuple(p.shape) for n, p in names.items() if n.endswith("adaption_prompt")}

    assert prompts(adapter_len=3, adapter_layers=1) == {"1": (1, 3, WIDTH)}
    assert prompts(adapter_layers=2) == dict.fromkeys("01", (1, 10, WIDTH))
    # All but the first two, and one at least.
    assert set(prompts()) == {"1"}


# --- features of an encoder ------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """Its states are a table's rows: those of a token, wherever it stands."""

    def __init__(self, *rows: tuple[float, float]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor(rows))
        self.config = Namespace(hidden_size=2, initializer_range=0.5)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Namespace:
        return Namespace(last_hidden_state=self.table[input_ids])


ENCODER = Encoder((100.0, 100.0), (1.0, 0.0), (0.0, 2.0), (3.0, 4.0))
IDS = torch.tensor([[1, 2, 3], [3, 0, 0], [0, 1, 3]])
MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 1]])
MEANS = torch.tensor([[4 / 3, 2.0], [3.0, 4.0], [2.0, 2.0]])


@torch.no_grad()
def test_the_mean_is_over_the_texts_tokens_wherever_padding_stands() -> None:
    torch.testing.assert_close(mean_pooled(ENCODER, IDS, MASK), MEANS)


@torch.no_grad()
def test_a_probe_is_a_linear_layer_on_the_mean() -> None:
    torch.manual_seed(0)
    probe = LinearProbe(ENCODER, 2)
    assert not probe.classifier.bias.any()
    probe.classifier.weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    probe.classifier.bias.copy_(torch.tensor([0.0, 0.5]))
    answer = probe(input_ids=IDS, attention_mask=MASK, labels=torch.tensor([0, 1, 1]))
    expected = torch.tensor([[4 / 3, 4 / 3 + 2.5], [3.0, 7.5], [2.0, 4.5]])
    torch.testing.assert_close(answer.logits, expected)
    margins = torch.tensor([-2.5, 4.5, 2.5])  # of the right label over the other
    torch.testing.assert_close(answer.loss, torch.log1p(torch.exp(-margins)).mean())
    assert probe(input_ids=IDS, attention_mask=MASK).loss is None
    torch.manual_seed(0)
    wide = LinearProbe(ENCODER, 5000)
    assert float(wide.classifier.weight.std()) == pytest.approx(0.5, rel=0.05)


@torch.no_grad()
def test_zero_shot_takes_the_cosine_of_text_and_label() -> None:
    labels = {
        "input_ids": torch.tensor([[1, 0], [2, 0], [2, 1]]),
        "attention_mask": torch.tensor([[1, 0]] * 2 + [[1, 1]]),
    }
    model = LabelSimilarity(ENCODER, labels)
    # The labels' means are (1, 0), (0, 2) and (1/2, 1); the second text's is (3, 4), of length 5.
    answer = model(input_ids=IDS[1:2], attention_mask=MASK[1:2]).logits
    torch.testing.assert_close(answer, torch.tensor([[0.6, 0.8, 5.5 / (5 * 1.25**0.5)]]))


def test_a_probe_trains_its_layer_alone_and_the_models_own_head_when_asked_to() -> None:
    bert = load_base("tiny-bert", labels=("a", "b", "c"), device="cpu", seed=3)
    probe, own = methods.apply("head", bert), methods.apply("head", bert, pooling="model")
    assert set(probe.trainable) == {"classifier.weight", "classifier.bias"}
    assert isinstance(probe.model, LinearProbe) and not isinstance(own.model, LinearProbe)
    assert {"classifier.weight", "classifier.bias"} <= set(own.trainable)
    assert not any(".layer." in name or "embeddings" in name for name in own.trainable)
    again = methods.apply("head", bert)
    assert torch.equal(probe.trainable["classifier.weight"], again.trainable["classifier.weight"])
    other = methods.apply("head", replace(bert, seed=4))
    assert not torch.equal(probe.trainable["classifier.weight"], other.trainable["classifier.weight"])
    with pytest.raises(InputError, match="did you mean 'mean'"):
        methods.apply("head", bert, pooling="means")


def test_the_untied_output_layer_starts_from_the_embedding() -> None:
    llama = load_base("tiny-llama", device="cpu", seed=3)
    tuned = methods.apply("head", llama)
    embedding, projection = tuned.model.get_input_embeddings(), tuned.model.get_output_embeddings()
    assert torch.equal(embedding.weight, projection.weight)
    assert embedding.weight.data_ptr() != projection.weight.data_ptr()
    assert (embedding.weight.requires_grad, projection.weight.requires_grad) == (False, True)
    assert tuned.model.config.tie_word_embeddings is False
    assert tuned.note == "output projection untied from the embedding"
    assert methods.apply("head", toy.base()).note is None  # nothing is tied there


# --- examples in context ---------------------------------------------------------------------------------------------


def labelled(kind: str = "classification") -> TaskData:
    train = [
        replace(toy.example(f"text {n} is ", f"class {label}"), label=label)
        for n, label in enumerate([0, 0, 0, 1, 2, 1])
    ]
    more: dict[str, Any] = (
        {"label": "l", "labels": {"0": "class 0", "1": "class 1"}, "metrics": ["accuracy"]}
        if kind == "classification"
        else {}
    )
    held = replace(toy.data(kind, train, **more), validation=(toy.example("v1 ", "x"), toy.example("v2 ", "x")))
    return replace(held, test=(toy.example("t1 ", "y"),))


def solved(*pairs: tuple[int, int]) -> str:
    return "".join(f"text {n} is class {label}\n\n" for n, label in pairs)


def test_the_classes_take_turns_in_the_order_of_the_training_split() -> None:
    data = labelled()
    # One of each class, then the next of each: the first text of class 0, of 1 and of 2; then the second of 0 …
    shown = solved((0, 0), (3, 1), (4, 2), (1, 0))
    shot = in_context(data, 4)
    assert [e.prompt for e in shot.validation] == [f"{shown}v1 ", f"{shown}v2 "]
    assert [e.prompt for e in shot.test] == [f"{shown}t1 "]
    assert shot.train == data.train
    assert [e.completion for e in shot.test] == ["y"]


def test_of_other_tasks_the_first_training_examples_are_shown() -> None:
    data = labelled("generation")
    assert in_context(data, 2).test[0].prompt == f"{solved((0, 0), (1, 0))}t1 "
    assert in_context(data, 1).validation[1].prompt == f"{solved((0, 0))}v2 "
    assert in_context(data, 0) is data


def test_the_shown_examples_are_drawn_by_the_seed_from_training_alone(tmp_path: Path) -> None:
    rows = "".join(f"question {n},answer {n}\n" for n in range(60))
    (tmp_path / "rows.csv").write_text("q,a\n" + rows)
    (tmp_path / "task.yaml").write_text(
        "name: own\nkind: generation\nsource: {local: rows.csv}\nprompt: '{q} '\ncompletion: '{a}'\n"
        "splits: {validation: 15, test: 15}\n"
    )
    shown = set()
    for seed in range(5):
        data = load_task(str(tmp_path / "task.yaml"), Budget(train_examples=8), seed)
        first, second = (f"{e.prompt}{e.completion}\n\n" for e in data.train[:2])
        shot = in_context(data, 2)
        for plain, prompted in zip((*data.validation, *data.test), (*shot.validation, *shot.test), strict=True):
            assert prompted.prompt == first + second + plain.prompt
        held = {e.prompt.strip() for e in (*data.validation, *data.test)}
        assert not held & {e.prompt.strip() for e in data.train[:2]}
        shown.add(first + second)
    assert len(shown) == 5


def test_shots_need_a_decoder_and_are_no_negative_number(base: Base) -> None:
    assert methods.apply("baseline", base, shots=3).trainable_params == 0
    with pytest.raises(InputError, match=r"baseline\.shots: must be at least 0 \(given: -1\)"):
        methods.apply("baseline", base, shots=-1)
    bert = load_base("tiny-bert", labels=("a", "b", "c"), device="cpu", seed=3)
    with pytest.raises(InputError, match="examples need a decoder"):
        methods.apply("baseline", bert, shots=1)
    assert isinstance(methods.apply("baseline", bert).model, LabelSimilarity)
