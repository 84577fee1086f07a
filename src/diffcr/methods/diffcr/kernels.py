"""The routed layer on a GPU at inference: score, rank, gather and put back, one kernel each.

`core/select.py` says what they compute, in some fifteen operations.

Shapes: B samples, N tokens of a sample, D width, K kept tokens.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffcr.core.select import rank_tokens

# Ranking compares all pairs, which are the square of the tokens: torch sorts more of them.
_MAX_TOKENS = 4096
_ROWS = 4
_RANKED = 16
_COMPARED = 1024
_GATES = {"identity": 0, "sigmoid": 1, "sigmoid-mlp": 2}


@triton.jit
def _score(x, router, logits, rows, width, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS,), tl.float32)
    for start in range(0, width, WIDTH):
        column = start + tl.arange(0, WIDTH)
        inside = (row < rows)[:, None] & (column < width)[None, :]
        values = tl.load(x + row.to(tl.int64)[:, None] * width + column[None, :], inside, 0.0)
        weights = tl.load(router + column, column < width, 0.0)
        total += tl.sum(values.to(tl.float32) * weights.to(tl.float32)[None, :], axis=1)
    tl.store(logits + row, total, row < rows)


@triton.jit
def _ordered(values):
    # Integers in the order of floats; NaN is above all, as torch sorts it, and 0 is -0.
    values = tl.where(values == values, values + 0.0, float("nan"))
    bits = values.to(tl.int32, bitcast=True)
    return tl.where(values == values, bits ^ ((bits >> 31) & 0x7FFFFFFF), 0x7FFFFFFF)


@triton.jit
def _rank(logits, scattered, ranking, places, tokens, RANKED: tl.constexpr, COMPARED: tl.constexpr):
    sample = tl.program_id(1).to(tl.int64) * tokens
    mine = tl.program_id(0) * RANKED + tl.arange(0, RANKED)
    token = tl.load(scattered + mine, mine < tokens, 0)
    key = _ordered(tl.load(logits + sample + token, mine < tokens, 0.0))
    before = tl.zeros((RANKED, COMPARED), tl.int32)
    for start in range(0, tokens, COMPARED):
        other = start + tl.arange(0, COMPARED)
        position = tl.load(scattered + other, other < tokens, 0)
        value = _ordered(tl.load(logits + sample + position, other < tokens, 0.0))
        above = value[None, :] > key[:, None]
        tied = (value[None, :] == key[:, None]) & (other[None, :] < mine[:, None])
        before += ((above | tied) & (other < tokens)[None, :]).to(tl.int32)
    place = tl.sum(before, axis=1)
    tl.store(ranking + sample + place, token, mine < tokens)
    tl.store(places + sample + token, place, mine < tokens)


@triton.jit
def _gather(x, ranking, kept_x, tokens, kept, width, WIDTH: tl.constexpr):
    place, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    token = tl.load(ranking + sample * tokens + place)
    source, target = (sample * tokens + token) * width, (sample * kept + place) * width
    for start in range(0, width, WIDTH):
        column = start + tl.arange(0, WIDTH)
        values = tl.load(x + source + column, column < width)
        tl.store(kept_x + target + column, values, column < width)


@triton.jit
def _put_back(
    x, updated, logits, places, output, tokens, kept, width, GATE: tl.constexpr, WIDTH: tl.constexpr
):
    token, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row = sample * tokens + token
    place = tl.load(places + row)
    score = tl.load(logits + row)
    # tanh(s / 2) = 2 sigmoid(s) - 1.
    excess = (2.0 if GATE == 0 else 1.0) * tl.sigmoid(score) - 1.0
    for start in range(0, width, WIDTH):
        column = start + tl.arange(0, WIDTH)
        inside = column < width
        value = tl.load(x + row * width + column, inside)
        if place < kept:
            source = (sample * kept + place) * width
            after = tl.load(updated + source + column, inside)
            if GATE != 2:
                change = after.to(tl.float32) - value.to(tl.float32)
                after = (after.to(tl.float32) + excess * change).to(after.dtype)
            tl.store(output + row * width + column, after, inside)
        else:
            tl.store(output + row * width + column, value.to(output.dtype.element_ty), inside)


def score(hidden_states: Tensor, router: Tensor) -> Tensor:
    """`router_logits` of hidden states [B, N, D], contiguous and at most float32, and a router [D]:
    [B, N] float32."""
    batch, tokens, width = hidden_states.shape
    logits = hidden_states.new_empty((batch, tokens), dtype=torch.float32)
    rows = batch * tokens
    with torch.cuda.device_of(logits):
        _score[(triton.cdiv(rows, _ROWS),)](
            hidden_states, router, logits, rows, width, ROWS=_ROWS, WIDTH=_block(width)
        )
    return logits


def rank(logits: Tensor, scattered: Tensor) -> tuple[Tensor, Tensor]:
    """`rank_tokens` of logits [B, N] float32 and `scattered_positions` [N]: [B, N] int64, and every
    token's place in that ranking, [B, N] int32."""
    batch, tokens = logits.shape
    places = torch.empty_like(logits, dtype=torch.int32)
    if tokens > _MAX_TOKENS:
        ranking = rank_tokens(logits, scattered)
        order = torch.arange(tokens, dtype=torch.int32, device=logits.device)
        return ranking, places.scatter_(1, ranking, order.expand(batch, -1))
    ranking = torch.empty_like(logits, dtype=torch.int64)
    grid = (triton.cdiv(tokens, _RANKED), batch)
    with torch.cuda.device_of(logits):
        _rank[grid](
            logits,
            scattered,
            ranking,
            places,
            tokens,
            RANKED=_RANKED,
            COMPARED=min(_COMPARED, triton.next_power_of_2(tokens)),
            num_warps=8,
        )
    return ranking, places


def gather(hidden_states: Tensor, ranking: Tensor, kept: int) -> Tensor:
    """The first `kept` tokens of a ranking [B, N]: [B, K, D] of hidden states [B, N, D], contiguous
    both."""
    batch, tokens, width = hidden_states.shape
    selected = hidden_states.new_empty((batch, kept, width))
    with torch.cuda.device_of(selected):
        _gather[(kept, batch)](
            hidden_states, ranking, selected, tokens, kept, width, WIDTH=_block(width)
        )
    return selected


def put_back(
    hidden_states: Tensor, updated: Tensor, logits: Tensor, places: Tensor, gate: str
) -> Tensor:
    """`scale_update` of the kept tokens, and `put_back`.

    Args:
        hidden_states: [B, N, D] before the block, contiguous.
        updated: [B, K, D] after it.
        logits: [B, N] float32.
        places: Of every token in the ranking, [B, N] int32.
        gate: Its name; "sigmoid-mlp" has scaled within the block.

    Returns:
        [B, N, D] in the dtype of `updated`.
    """
    batch, tokens, width = hidden_states.shape
    output = torch.empty_like(hidden_states, dtype=updated.dtype)
    with torch.cuda.device_of(output):
        _put_back[(tokens, batch)](
            hidden_states,
            updated.contiguous(),
            logits,
            places,
            output,
            tokens,
            updated.shape[1],
            width,
            GATE=_GATES[gate],
            WIDTH=_block(width),
        )
    return output


def _block(width: int) -> int:
    return min(2048, int(triton.next_power_of_2(width)))
