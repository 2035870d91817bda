"""One answer for a whole text: alone, and padded on either side in a batch, it is the same with every method."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import checkpoints
from helpers.checkpoints import CLS, END, SEP, byte_tokenizer

from harness import methods
from harness.errors import InputError
from harness.models.load import Base, load
from harness.networks.tuned import Tuned
from harness.tasks.logprobs import padded

pytestmark = pytest.mark.slow

METHODS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "full": {},
    "head": {},
    "bitfit": {},
    "adapter": {"bottleneck": 4},
    "lora": {},
    "ia3": {},
    "prompt": {"num_virtual_tokens": 5, "init": "random"},
    "p_tuning": {"num_virtual_tokens": 5, "encoder_hidden_size": 8},
    "prefix": {"num_virtual_tokens": 5},
    "llama_adapter": {"adapter_len": 3},
    "qlora": {},
}
#: Ends in the end token, which is the padding where a tokenizer has none; one contains it, and one is short.
REWARDED = [[70, 71, 72, END], [70, END, 72, 73, 74, 75, 76, END], [99, END]]
CLASSIFIED = [[CLS, 70, 71, 72, SEP], [CLS, 70, 72, 73, 74, 75, 76, SEP], [CLS, 99, SEP]]


def grid(families: Iterable[str], *thorough: str) -> list[tuple[str, str]]:
    """Every method on the families ``thorough``, on the others those that move places."""
    moving = ("baseline", "prompt", "p_tuning", "prefix")
    return [(family, method) for family in families for method in (METHODS if family in thorough else moving)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("checkpoints")
    saved = {name: checkpoints.save(place / name, name) for name in checkpoints.ENCODERS}
    # The configuration's padding is not the tokenizer's, which has none and takes the end token.
    no_pad = byte_tokenizer(pad=None)
    for name in checkpoints.DECODERS:
        saved[name] = checkpoints.save(place / name, name, tokenizer=no_pad, pad_token_id=0)
    return saved


def applied(method: str, base: Base) -> Tuned:
    try:
        tuned = methods.apply(method, base, **METHODS[method])
    except InputError as error:
        pytest.skip(str(error))
    with torch.no_grad():
        for name, parameter in tuned.trainable.items():
            # What starts at zero or one would not show whether it reads the padding.
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    return tuned.__class__(tuned.base, tuned.model)


@torch.no_grad()
def check(tuned: Tuned, texts: list[list[int]]) -> torch.Tensor:
    """The answers to ``texts``, the same alone and in batches that are padded on the right and on the left."""

    def answers(rows: list[list[int]], side: str = "right") -> torch.Tensor:
        ids, mask = padded(rows, tuned.base.tokenizer.pad_token_id, side=side)
        found: torch.Tensor = tuned.model(input_ids=ids, attention_mask=mask).logits
        return found

    alone = torch.cat([answers([text]) for text in texts])
    for side in ("right", "left"):
        torch.testing.assert_close(answers(texts, side), alone, rtol=1e-4, atol=2e-5)
    assert alone.std(0).min() > 1e-4, "all answers are alike, so the check would prove nothing"
    return alone


@pytest.mark.parametrize(("family", "method"), grid(checkpoints.DECODERS, "llama", "gpt2"))
def test_a_reward_is_that_of_the_text_alone(folders: dict[str, Path], family: str, method: str) -> None:
    check(applied(method, load(str(folders[family]), scalar=True, device="cpu")), REWARDED)


@pytest.mark.parametrize(("family", "method"), grid(checkpoints.ENCODERS, "bert", "distilbert"))
def test_a_class_is_that_of_the_text_alone(folders: dict[str, Path], family: str, method: str) -> None:
    check(applied(method, load(str(folders[family]), labels=("a", "b", "c"), device="cpu")), CLASSIFIED)


@pytest.mark.parametrize("family", checkpoints.DECODERS)
@torch.no_grad()
def test_a_reward_reads_the_state_of_the_last_token(folders: dict[str, Path], family: str) -> None:
    model = load(str(folders[family]), scalar=True, device="cpu").build()
    states: list[torch.Tensor] = []
    hooks = model.base_model._forward_hooks.copy()
    model.base_model._forward_hooks.clear()
    for text in REWARDED:
        states.append(model.base_model(input_ids=torch.tensor([text])).last_hidden_state[0, -1])
    model.base_model._forward_hooks.update(hooks)
    expected = model.score(torch.stack(states))
    ids, mask = padded(REWARDED, END)
    torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).logits, expected, rtol=1e-4, atol=1e-5)
