"""Words of every script, for metrics that compare words.

The tokenizer of ``rouge-score`` keeps a-z and 0-9 alone, so that two equal Russian texts have nothing in common. This
one gives the same tokens for ASCII texts, and words with their combining marks for all others; scripts that put no
spaces between words, such as Chinese, Japanese and Thai, are compared character by character.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from rouge_score.tokenizers import DefaultTokenizer, Tokenizer

_SCRIPTS_WITHOUT_SPACES = ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan")


@functools.cache
def _word() -> re.Pattern[str]:
    import regex  # type: ignore[import-untyped]  # the standard library's expressions know neither scripts nor marks

    single = "".join(rf"\p{{{script}}}" for script in _SCRIPTS_WITHOUT_SPACES)
    # Zero-width joiners stand inside words of Indic and Arabic scripts.
    inside = r"\p{L}\p{M}\p{N}\u200c\u200d"
    pattern: re.Pattern[str] = regex.compile(
        rf"(?V1)[[{single}]--\p{{M}}]\p{{M}}*|[[\p{{L}}\p{{N}}]--[{single}]][[{inside}]--[{single}]]*"
    )
    return pattern


class WordTokenizer(Tokenizer):
    """Words of a text: ASCII words as ``rouge-score`` stems them, unless not ``stemmed``; others as they are."""

    def __init__(self, *, stemmed: bool = True) -> None:
        self._ascii = DefaultTokenizer(use_stemmer=stemmed)

    def tokenize(self, text: str) -> list[str]:
        """The words; a text of signs alone, such as emoji, gives its characters, unless they are ASCII."""
        if text.isascii():
            return list(self._ascii.tokenize(text))
        plain = unicodedata.normalize("NFKC", text).casefold()
        words = _word().findall(plain)
        if not words:
            return [character for character in plain if not character.isspace() and not character.isascii()]
        return [stem for word in words for stem in (self._ascii.tokenize(word) if word.isascii() else [word])]
