"""A test helper: predictions and references that every metric can rate, right about two times out of three."""

from __future__ import annotations

import numpy as np

OF_NUMBERS = ("pearson", "spearman", "mse", "numeric_answers")
TEXTS = ("the cat sat on the mat today", "a dog ran over the road at night", "birds fly south for the long winter")


def of(name: str, n: int, seed: int = 0) -> tuple[list[object], list[object]]:
    """Predictions and references of ``n`` examples for the metric called ``name``."""
    random = np.random.default_rng(seed)
    if name == "perplexity":
        tokens = random.integers(5, 20, n)
        return [float(t * x) for t, x in zip(tokens, random.normal(2, 0.3, n), strict=True)], [int(t) for t in tokens]
    if name in OF_NUMBERS:
        right = random.normal(3, 1, n)
        said = [f"{x:.3f}" if random.random() < 0.8 else "none" for x in right + random.normal(0, 0.5, n)]
        return list(said), [float(x) for x in right]
    texts = [TEXTS[i] for i in random.integers(0, 3, n)]
    return [one if random.random() < 0.66 else TEXTS[random.integers(0, 3)] for one in texts], list(texts)
