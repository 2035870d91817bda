"""A product with packed signs that are never unpacked into memory: BitDelta on a GPU, in one call for all tenants.

The kernel of the paper's authors serves a tenant for each row of a batch (Liu et al. 2024, arXiv:2402.10193, section
3.3); so does this one, for rows of any number of tokens. It is written in Triton, and this module is read only where
there is a GPU: see :func:`harness.serving.stacks.has_sign_kernel`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

#: A product of a tile needs at least 16 tokens. Rows of a single one leave 15 places empty: the time goes to reading
#: signs, not to arithmetic. Signs are read once for each tile, so a long text gets larger ones.
TOKENS_OF_A_TILE = (16, 64)
OUTPUTS_OF_A_TILE = 64
#: Eight to a byte.
BYTES_OF_A_TILE = 16


@triton.jit
def _tile(  # type: ignore[no-untyped-def]
    x, signs, index, alpha, out, tokens, inputs, outputs, row_bytes,
    TOKENS: tl.constexpr, OUTPUTS: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    """One tile of ``alpha * x @ signs.T``: some tokens of one row, some outputs of its tenant."""
    tiles = tl.cdiv(tokens, TOKENS)
    row = (tl.program_id(0) // tiles).to(tl.int64)
    token = (tl.program_id(0) % tiles) * TOKENS + tl.arange(0, TOKENS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    slot = tl.load(index + row)
    read = x + (row * tokens + token)[:, None] * inputs
    packed = signs + (slot * outputs + output)[:, None] * row_bytes
    bit = tl.arange(0, 8).to(tl.uint8)
    total = tl.zeros((TOKENS, OUTPUTS), dtype=tl.float32)
    for start in range(0, row_bytes, BYTES):
        byte = start + tl.arange(0, BYTES)
        column = start * 8 + tl.arange(0, BYTES * 8)
        # Behind the last column x is 0, so it does not matter what the last byte holds there.
        part = tl.load(read + column[None, :], mask=(token[:, None] < tokens) & (column[None, :] < inputs), other=0.0)
        eight = tl.load(packed + byte[None, :], mask=(output[:, None] < outputs) & (byte[None, :] < row_bytes), other=0)
        ones = tl.reshape((eight[:, :, None] >> bit[None, None, :]) & 1, (OUTPUTS, BYTES * 8))
        total += tl.dot(part, tl.trans(ones.to(part.dtype) * 2 - 1), input_precision="ieee")
    wanted = (token[:, None] < tokens) & (output[None, :] < outputs)
    change = (total * tl.load(alpha + slot)).to(out.dtype.element_ty)
    tl.store(out + (row * tokens + token)[:, None] * outputs + output[None, :], change, mask=wanted)


def products(x: Tensor, signs: Tensor, index: Tensor, alpha: Tensor) -> Tensor:
    """``alpha[i] * x[row] @ signs[i].T`` with ``i = index[row]``, for every row: (rows, tokens, outputs).

    ``x`` (rows, tokens, inputs) in 16 or 32 bits; ``signs`` (tenants, outputs, bytes of a row), uint8, as
    :func:`harness.methods.bitdelta.pack_signs` packs them; ``index`` (rows,) int64; ``alpha`` (tenants,). Sums are kept
    in float32, and rounded once.
    """
    rows, tokens, inputs = x.shape
    outputs, row_bytes = signs.shape[1:]
    out = x.new_empty(rows, tokens, outputs)
    fewest, most = TOKENS_OF_A_TILE
    tile = max(fewest, min(most, triton.next_power_of_2(tokens)))
    grid: Any = (rows * triton.cdiv(tokens, tile), triton.cdiv(outputs, OUTPUTS_OF_A_TILE))
    with torch.cuda.device_of(x):
        _tile[grid](
            x.contiguous(), signs, index, alpha, out, tokens, inputs, outputs, row_bytes,
            TOKENS=tile, OUTPUTS=OUTPUTS_OF_A_TILE, BYTES=BYTES_OF_A_TILE,
        )  # fmt: skip
    return out
