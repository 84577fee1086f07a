"""Half of the tokens against the class's own block under masked attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diffcr.binding.model import get_compressor
from diffcr.hosts import family_of
from diffcr.hosts.block_inputs import BlockInputs, sequence_of
from diffcr.hosts.host import host_blocks
from diffcr.methods.bound import bound_block
from diffcr.methods.diffcr.branch import run_block
from tests.families.comparing import assert_close, forward, routed, tensors
from tests.families.masked import masked_forward
from tests.tiny_hosts.host import TinyHost


def half_is_masked_attention(host: TinyHost, gate: str = "identity") -> None:
    """Half of the tokens, other ones in each sample: the block's own result under an attention that
    does not see the others, text and other streams too; what is skipped stays as it is."""
    transformer = routed(host, gate=gate)
    compressor = get_compressor(transformer)
    for router in compressor.routers.values():
        router.data.zero_()
    family = family_of(transformer)
    blocks = host_blocks(transformer)
    firsts = {group: next(b for b in blocks if b.group == group) for group in family.block_groups}
    lasts = {block.group: block for block in blocks}
    looked_at = {block.name: block for block in (*firsts.values(), *lasts.values())}
    seen: list[str] = []
    batch = 2
    given = host.inputs(batch, 0)
    tokens = family.tokens(transformer, given)
    generator = torch.Generator().manual_seed(7)
    ranking = torch.stack([torch.randperm(tokens, generator=generator) for _ in range(batch)])
    kept = tokens - tokens // 2
    dropped = torch.ones(batch, tokens, dtype=torch.bool).scatter(1, ranking[:, :kept], False)

    def look(block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        bound = bound_block(block)
        inputs = bound.inputs(bound.name_arguments(args, kwargs))

        def dense(given: BlockInputs) -> Any:
            halves = torch.full((len(given.sequence), tokens), 0.5)
            scale = given.over_rows(halves) if gate == "sigmoid-mlp" else None
            return run_block(block, given.arguments, scale)

        expected = masked_forward(dense, inputs, dropped)
        _compare(inputs, output, expected, dropped)
        seen.append(f"{bound.group}.{bound.row}")

    for block in looked_at.values():
        block.module.register_forward_hook(look, with_kwargs=True)
    rankings = dict.fromkeys(range(len(blocks)), ranking)
    with compressor.holding_rankings(rankings):
        outputs = forward(transformer, given)
    assert sorted(seen) == sorted(looked_at)
    assert all(output.isfinite().all() for output in outputs)


def _compare(inputs: BlockInputs, output: Any, expected: Any, dropped: Tensor) -> None:
    found, dense = inputs.routed_of(output), inputs.routed_of(expected)
    assert torch.equal(found[dropped], inputs.routed[dropped])
    assert_close([found[~dropped]], [dense[~dropped]], 1e-6)
    zeros = torch.zeros_like(found)
    sequence = sequence_of(inputs.layout, inputs.with_routed(output, zeros))
    other = sequence_of(inputs.layout, inputs.with_routed(expected, zeros))
    if other.shape != zeros.shape:
        assert_close([sequence], [other], 1e-6)
    if isinstance(expected, tuple):
        place = inputs.layout.outputs.index(inputs.layout.hidden_states)
        assert_close(
            tensors([stream for row, stream in enumerate(output) if row != place]),
            tensors([stream for row, stream in enumerate(expected) if row != place]),
            1e-6,
        )
