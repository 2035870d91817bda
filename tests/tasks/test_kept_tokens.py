"""Token ids that are kept: the same as those made anew, whatever happened to the file; other inputs, other ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import checkpoints
from helpers import toy_tasks as toy

from harness.errors import InputError
from harness.tasks import kept_tokens
from harness.tasks.data import Example
from harness.tasks.encode import Encoded, encode_examples
from harness.tasks.kept_tokens import encode_once, place

EXAMPLES = [toy.example(f"question {i}" * (i + 1), "é" * i) for i in range(5)]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A cache of its own that keeps any number of examples; the list grows with each split that is encoded."""
    sizes: list[int] = []

    def counted(tokenizer: Any, examples: Sequence[Example], *settings: Any) -> list[Encoded]:
        sizes.append(len(examples))
        return encode_examples(tokenizer, examples, *settings)

    monkeypatch.setenv("TUNEBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(kept_tokens, "WORTH_KEEPING", 1)
    monkeypatch.setattr(kept_tokens, "encode_examples", counted)
    return sizes


def whole(rows: Sequence[Encoded]) -> list[tuple[Any, ...]]:
    """With what an encoding's equality leaves out."""
    return [dataclasses.astuple(row) for row in rows]


def test_the_same_ids_from_the_cache_and_made_once(made: list[int]) -> None:
    tokenizer = checkpoints.byte_tokenizer()
    expected = whole(encode_examples(tokenizer, EXAMPLES, 24, 8))
    assert len({row[2] for row in expected}) == 2, "some are cut"
    assert [whole(encode_once(tokenizer, EXAMPLES, 24, 8)) for _ in range(3)] == [expected] * 3
    assert made == [5]


def other_template(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


CHANGES: dict[str, Callable[[Any, list[Any]], Any]] = {
    "a prompt": lambda _, asked: asked.__setitem__(0, [toy.example("other", ""), *EXAMPLES[1:]]),
    "an answer": lambda _, asked: asked.__setitem__(0, [toy.example("question 0", "y"), *EXAMPLES[1:]]),
    "candidates": lambda _, asked: asked.__setitem__(0, [dataclasses.replace(e, candidates=("y",)) for e in EXAMPLES]),
    "order": lambda _, asked: asked.__setitem__(0, EXAMPLES[::-1]),
    "length": lambda _, asked: asked.__setitem__(1, 25),
    "room": lambda _, asked: asked.__setitem__(2, 9),
    "apart": lambda _, asked: asked.__setitem__(3, True),
    "template": lambda tokenizer, _: other_template(tokenizer),
    "vocabulary": lambda tokenizer, _: tokenizer.add_tokens(["question"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_ids_depend_on_makes_others(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEBENCH_CACHE", str(tmp_path))
    asked: list[Any] = [EXAMPLES, 24, 8, False]
    tokenizer = checkpoints.byte_tokenizer()
    before = place(tokenizer, *asked)
    assert before == place(checkpoints.byte_tokenizer(), *asked)
    CHANGES[change](tokenizer, asked)
    assert place(tokenizer, *asked) != before


@pytest.mark.parametrize("damage", ["emptied", "cut", "flipped"])
def test_a_damaged_file_is_made_anew(damage: str, made: list[int], capfd: pytest.CaptureFixture[str]) -> None:
    tokenizer = checkpoints.byte_tokenizer()
    expected = whole(encode_once(tokenizer, EXAMPLES, 24, 8))
    file = place(tokenizer, EXAMPLES, 24, 8, False) / "tokens.arrow"
    content = file.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
    file.write_bytes({"emptied": b"", "cut": content[:middle], "flipped": flipped}[damage])
    assert whole(encode_once(tokenizer, EXAMPLES, 24, 8)) == expected
    assert made == [5, 5] and "is damaged and is made anew" in capfd.readouterr().err
    assert whole(encode_once(tokenizer, EXAMPLES, 24, 8)) == expected
    assert made == [5, 5]


def test_a_cache_that_cannot_be_written_is_done_without(made: list[int], tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("a file where the folder should be")
    tokenizer = checkpoints.byte_tokenizer()
    assert whole(encode_once(tokenizer, EXAMPLES, 24, 8)) == whole(encode_examples(tokenizer, EXAMPLES, 24, 8))


def test_what_cannot_be_encoded_is_said_as_ever(made: list[int]) -> None:
    tokenizer = checkpoints.byte_tokenizer()
    tokenizer.chat_template = "a long frame around {{ messages[0]['content'] }}"
    with pytest.raises(InputError, match=r"budget\.max_length"):
        encode_once(tokenizer, EXAMPLES, 12, 6)


def test_the_cache_has_a_bound_and_what_was_kept_first_goes(made: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = checkpoints.byte_tokenizer()
    splits = [EXAMPLES[i : i + 3] for i in range(3)]
    encode_once(tokenizer, splits[0], 24, 8)
    folders = [place(tokenizer, split, 24, 8, False) for split in splits]
    size = (folders[0] / "tokens.arrow").stat().st_size
    monkeypatch.setattr(kept_tokens, "LARGEST_BYTES", int(2.5 * size))
    for split in splits[1:]:
        encode_once(tokenizer, split, 24, 8)
    assert [folder.is_dir() for folder in folders] == [False, True, True]


def test_few_examples_and_slow_tokenizers_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEBENCH_CACHE", str(tmp_path))
    encode_once(checkpoints.byte_tokenizer(), EXAMPLES, 24, 8)
    monkeypatch.setattr(kept_tokens, "WORTH_KEEPING", 1)
    encode_once(toy.base().tokenizer, EXAMPLES, 24, 8)
    assert list(tmp_path.iterdir()) == []
