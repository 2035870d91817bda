"""Solved examples before a prompt, where they are longer than the budget allows a prompt to be."""

from __future__ import annotations

from dataclasses import replace

import transformers
from helpers import toy_tasks as toy

from harness.methods.baseline import in_context
from harness.tasks.data import Example, TaskData
from harness.tasks.encode import cut_prompt, text_ids

TOKENIZER = transformers.ByT5Tokenizer(extra_ids=0)
LENGTH = 48
WORDS = ("class 0", "class 1")


def example(number: int, words: str = "", answer: str = "yes") -> Example:
    return toy.example(f"{words}\ntext {number} is", answer)


def task(*train: Example) -> TaskData:
    return replace(toy.data("generation", train), test=(toy.example("question one\nAnswer:", "y"),))


def test_short_examples_stay_as_they_are() -> None:
    data = task(example(0), example(1))
    assert in_context(data, 2, TOKENIZER, LENGTH).test == in_context(data, 2).test


def test_one_long_example_stays_whole_where_the_others_leave_room() -> None:
    data = task(example(0, "word " * 8), example(1), example(2))
    assert in_context(data, 3, TOKENIZER, LENGTH).test == in_context(data, 3).test


def test_long_examples_leave_the_question_its_room() -> None:
    data = task(*(example(number, "word " * 2000, "yes " * 300) for number in range(3)))
    prompt = in_context(data, 3, TOKENIZER, LENGTH).test[0].prompt
    shown, question = prompt[: -len(data.test[0].prompt)], prompt[-len(data.test[0].prompt) :]
    assert question == data.test[0].prompt
    assert len(text_ids(TOKENIZER, shown)) <= 3 * LENGTH
    for number in range(3):  # the line that asks stays, as it does in training
        assert f"text {number} is yes" in shown
    ids = cut_prompt(TOKENIZER, prompt, 4 * LENGTH, 4)
    assert question in TOKENIZER.decode(ids)


def test_the_labels_of_long_examples_stay_whole() -> None:
    words = "word " * 2000
    solved = [replace(example(n, words, f"I say {WORDS[n % 2]} here"), label=n % 2, candidates=WORDS) for n in range(4)]
    data = toy.data("classification", solved, label="l", labels={"0": WORDS[0], "1": WORDS[1]}, metrics=["accuracy"])
    prompt = in_context(data, 4, TOKENIZER, LENGTH).test[0].prompt
    assert prompt.count("I say class 0 here\n\n") == prompt.count("I say class 1 here\n\n") == 2
