"""What a checkpoint says about its tokens is read once: padding, ends, settings of generation, the vocabulary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers import checkpoints
from helpers.checkpoints import END, PAD, byte_tokenizer

from harness.errors import InputError
from harness.models import tokens
from harness.models.load import Base, load

FOR_WORDS = transformers.AutoModelForCausalLM


def say(folder: Path, **changes: Any) -> None:
    """Change what a checkpoint's configuration says."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def loaded(folder: Path, **args: Any) -> Base:
    return load(str(folder), device="cpu", **args)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma3_text"])
@pytest.mark.parametrize("head", [{}, {"scalar": True}])
def test_the_padding_is_the_tokenizers(tmp_path: Path, family: str, head: dict[str, Any]) -> None:
    folder = checkpoints.save(tmp_path, family, FOR_WORDS, pad_token_id=0, generation={"pad_token_id": 5})
    model = loaded(folder, **head).build()
    assert model.config.pad_token_id == model.config.get_text_config().pad_token_id == PAD
    if not head:
        assert model.generation_config.pad_token_id == PAD
    # Row 0 is a word's: it must get its gradient.
    assert model.get_input_embeddings().padding_idx is None


def test_the_padding_of_a_configuration_inside_another_is_the_tokenizers_too() -> None:
    inner = {**checkpoints.DECODERS["gemma3_text"], "pad_token_id": 0, "model_type": "gemma3_text"}
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.Gemma3Config(text_config=inner, vision_config={**vision, "image_size": 28, "patch_size": 14})
    model = transformers.AutoModelForCausalLM.from_config(config)
    tokens.settle_ids(model, byte_tokenizer("<pad>"), (END,))
    assert model.config.pad_token_id == model.config.text_config.pad_token_id == PAD


def test_a_tokenizer_without_padding_uses_its_end_and_pads_on_the_right(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(pad=None)
    tokenizer.padding_side = "left"
    base = loaded(checkpoints.save(tmp_path, "llama", FOR_WORDS, tokenizer=tokenizer, pad_token_id=None))
    assert (base.tokenizer.pad_token_id, base.tokenizer.padding_side) == (END, "right")
    assert base.build().config.pad_token_id == END


def test_every_end_is_known(tmp_path: Path) -> None:
    folder = checkpoints.save(tmp_path, "llama", FOR_WORDS, eos_token_id=[7, 9], generation={"eos_token_id": [9, 11]})
    base = loaded(folder)
    assert base.end_token_ids == (END, 7, 9, 11)
    assert base.build().generation_config.eos_token_id == [END, 7, 9, 11]
    say(folder, eos_token_id=8)
    (folder / "generation_config.json").unlink()
    assert loaded(folder).end_token_ids == (END, 8)


def test_random_weights_end_where_their_tokenizer_does() -> None:
    base = load("tiny-llama", device="cpu")
    assert base.end_token_ids == (base.tokenizer.eos_token_id,)


QUIRKS = {
    "do_sample": True,
    "temperature": 0.3,
    "top_k": 3,
    "repetition_penalty": 5.0,
    "no_repeat_ngram_size": 1,
    "suppress_tokens": list(range(64, 128)),
    "forced_eos_token_id": END,
    "max_new_tokens": 2,
}


@pytest.mark.parametrize("where", ["generation_config.json", "config.json"])
def test_a_checkpoints_settings_of_generation_are_left_behind(tmp_path: Path, where: str) -> None:
    folder = checkpoints.save(tmp_path, "llama", FOR_WORDS)
    path = folder / where
    path.write_text(json.dumps({**json.loads(path.read_text()), **QUIRKS}))
    if where == "config.json":
        (folder / "generation_config.json").unlink()
    model = loaded(folder).build()
    ids = torch.tensor([[65, 66, 67]])
    answer = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8)[0, 3:].tolist()
    greedy: list[int] = []
    while len(greedy) < 8 and END not in greedy:
        logits = model(input_ids=torch.tensor([[65, 66, 67, *greedy]])).logits
        greedy.append(int(logits[0, -1].argmax()))
    assert answer == greedy
    given = model.generation_config.to_diff_dict()
    assert set(given) <= {"pad_token_id", "eos_token_id", "bos_token_id", "transformers_version"}


def test_ids_that_the_embedding_lacks_are_told_at_load(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(extra=("<|user|>", "<|assistant|>"))
    folder = checkpoints.save(tmp_path, "llama", FOR_WORDS, tokenizer=tokenizer)
    with pytest.raises(InputError, match=r"2 more tokens than the embedding has rows, which are 272") as caught:
        loaded(folder)
    assert "\n" not in str(caught.value) and "'<|user|>' (272)" in str(caught.value)
    assert "resize_token_embeddings(274)" in str(caught.value)


def test_added_tokens_are_counted_by_their_ids(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["a whole phrase"])
    with pytest.raises(InputError, match="1 more tokens"):
        loaded(checkpoints.save(tmp_path, "gpt2", FOR_WORDS, tokenizer=tokenizer))


def test_a_token_for_pictures_may_lie_beyond_the_rows(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(extra=("<image_soft_token>",))
    roles = {"pad_token": "<pad>", "eos_token": "</s>", "extra_special_tokens": {"image_token": "<image_soft_token>"}}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, **roles)
    base = loaded(checkpoints.save(tmp_path, "gemma3_text", FOR_WORDS, tokenizer=tokenizer))
    assert len(base.tokenizer) == 273


def test_weights_of_another_shape_than_the_configuration_says_are_told(tmp_path: Path) -> None:
    folder = checkpoints.save(tmp_path, "llama", FOR_WORDS)
    say(folder, vocab_size=300)
    with pytest.raises(InputError, match=r"model\.embed_tokens\.weight .*has not the shape that its config"):
        loaded(folder).build()
