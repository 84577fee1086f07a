"""What takes the place of forwards under reuse: of a block's, and of its self-attention's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diffcr.core.select import gather_tokens, put_back
from diffcr.errors import DiffCRError
from diffcr.hosts.block_inputs import BlockOutput
from diffcr.hosts.layout import BlockLayout
from diffcr.methods.bound import BoundBlock, bound_block, bound_part
from diffcr.methods.reuse.config import ReuseConfig
from diffcr.methods.reuse.reuser import ReusePass, TokenReuser
from diffcr.methods.reuse.trajectory import Remembered
from diffcr.methods.seam import Seam


def reuse_seam(config: ReuseConfig) -> Seam:
    """Every block, and its self-attention, whose keys and values are kept."""
    if config.granularity == "steps":
        return Seam(reusing_forward)
    return Seam(reusing_forward, {"self_attention": remembering_forward})


def refuses_reuse(config: ReuseConfig, layout: BlockLayout) -> str | None:
    """Why blocks of a layout cannot reuse what they computed."""
    if config.granularity == "tokens" and not layout.keys_and_values:
        return "its blocks have keys and values that cannot be kept: give granularity 'steps'"
    if layout.denoised_beside:
        return f"it denoises {', '.join(layout.denoised_beside)} beside the tokens"
    return None


def reusing_forward(block: nn.Module, *args: Any, **kwargs: Any) -> BlockOutput:
    """Takes the place of a block's forward.

    Between the first and the last block the hidden states are those of the computed tokens alone;
    hosts hand them on from block to block as they are.
    """
    bound: BoundBlock[TokenReuser] = bound_block(block)
    arguments = bound.name_arguments(args, kwargs)
    reuser = bound.attached
    if not reuser.enabled or reuser.context.trajectory is None:
        return bound.run(block, arguments)
    inputs, reused = bound.inputs(arguments), reuser.context
    if reuser.config.granularity == "tokens":
        inputs.layout.refuse_token_inputs(arguments, "token reuse")
    if bound.layer == 0:
        entered = _enter(reused, inputs.routed)
        if reused.kept is not None:
            inputs = inputs.with_sequence(entered)
    output = inputs.unchanged if reused.skips else bound.run(block, inputs.arguments)
    if bound.layer + 1 < reuser.layers:
        return output
    if reused.kept is not None:
        return _leave(reused, output, reuser.config.drift)
    return inputs.with_routed(output, _leave(reused, inputs.routed_of(output), reuser.config.drift))


def _enter(reused: ReusePass, hidden_states: Tensor) -> Tensor:
    trajectory = reused.trajectory
    assert trajectory is not None
    reused.entered, reused.kept = hidden_states, None
    if reused.count == hidden_states.shape[1] or not trajectory.fits(hidden_states):
        # Interrupted, this call leaves a trajectory that begins anew.
        trajectory.inputs = trajectory.updates = None
        return hidden_states
    reused.skips = reused.count == 0
    if reused.skips:
        # A host may write into what a skipped block hands on (ControlNet in Chroma and Bria).
        reused.entered = hidden_states.clone(memory_format=torch.contiguous_format)
        return hidden_states
    # As `BlockInputs.with_whole_rows`.
    reused.entered = hidden_states = hidden_states.contiguous()
    reused.kept = kept = trajectory.choose(hidden_states, reused.count, reused.scattered)
    return gather_tokens(hidden_states, kept.indices, rows=kept.rows)


def _leave(reused: ReusePass, output: Tensor, drift: float) -> Tensor:
    trajectory, entered, kept = reused.trajectory, reused.entered, reused.kept
    assert trajectory is not None and entered is not None
    reused.entered = None
    if reused.skips:
        assert trajectory.updates is not None
        return entered + trajectory.updates.rows
    if kept is None:
        trajectory.inputs = Remembered(entered)
        trajectory.updates = Remembered(output - entered, reused.carries_gradients)
        return output
    assert trajectory.inputs is not None and trajectory.updates is not None
    before = gather_tokens(entered, kept.indices, rows=kept.rows)
    trajectory.inputs.take(before, kept, drift=0)
    updates = trajectory.updates.take(output - before, kept, drift)
    return put_back(entered + updates, kept.rows, output, owned=True)


class _RememberingAttention:
    """An attention whose keys and values are those of all tokens, of the skipped ones as they were.

    Beside the module, not on it: adapters that wrap its layers later are called as they are.
    """

    def __init__(self, attention: Any, owner: BoundBlock[TokenReuser]) -> None:
        self.attention = attention
        self.owner = owner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.attention, name)
        if name not in self.owner.layout.keys_and_values:
            return found
        return lambda hidden_states: _remember(self.owner, name, found(hidden_states))


def _remember(owner: BoundBlock[TokenReuser], name: str, computed: Tensor) -> Tensor:
    reused = owner.attached.context
    assert reused.trajectory is not None and reused.entered is not None
    if len(computed) != len(reused.entered):
        raise DiffCRError(
            "the attention's processor computes keys or values of some samples alone (perturbed-"
            "attention guidance?): give granularity 'steps'"
        )
    parts = reused.trajectory.parts
    if reused.kept is None:
        parts[owner.layer, name] = Remembered(computed)
        return computed
    remembered = parts[owner.layer, name]
    return remembered.take(computed, reused.kept, owner.attached.config.drift)


def remembering_forward(attention: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Takes the place of a self-attention's forward."""
    bound = bound_part(attention)
    reuser: TokenReuser = bound.owner.attached
    if not reuser.enabled or reuser.context.trajectory is None:
        return bound.host_forward(attention, *args, **kwargs)
    if getattr(attention, "fused_projections", False):
        raise DiffCRError(
            "token reuse keeps keys and values apart, and the projections are fused: call "
            "transformer.unfuse_qkv_projections() first"
        )
    return bound.host_forward(_RememberingAttention(attention, bound.owner), *args, **kwargs)
