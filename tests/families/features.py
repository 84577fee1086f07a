"""What is asked of every family, each as a function that raises where it does not hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffcr
from diffcr.binding.model import get_compressor
from diffcr.core.select import router_logits
from diffcr.errors import DiffCRError
from diffcr.hosts import family_of
from diffcr.hosts.host import host_blocks
from diffcr.methods.bound import bound_block
from diffcr.methods.coverage import CONFIGURATIONS, method_refusals
from diffcr.methods.diffcr.branch import run_block
from diffcr.methods.diffcr.compressor import Compressor
from tests.families.comparing import assert_close, assert_equal, forward, routed, tensors
from tests.families.kept_half import half_is_masked_attention
from tests.families.training import trains
from tests.tiny_hosts.host import TinyHost


def fresh_is_exact(host: TinyHost) -> None:
    """Freshly attached, every output is the bare model's bit for bit; so it is after detaching."""
    transformer, given = host.make(), host.inputs(2, 0)
    bare = forward(transformer, given)
    keys = list(transformer.state_dict())
    compressor = diffcr.attach(transformer)
    assert_equal(forward(transformer, given), bare)
    compressor.set_compression_ratios(0.5)
    assert not torch.equal(forward(transformer, given)[0], bare[0])
    with diffcr.disabled(transformer):
        assert_equal(forward(transformer, given), bare)
    diffcr.detach(transformer)
    assert_equal(forward(transformer, given), bare)
    assert list(transformer.state_dict()) == keys


def sigmoid_mlp_scales(host: TinyHost) -> None:
    """The gate "sigmoid-mlp" scales what the feed-forward adds to a token with the token's own
    score, and nothing else: pinned rows and other streams are the bare block's."""
    half_is_masked_attention(host, gate="sigmoid-mlp")
    transformer = routed(host, 0.0, gate="sigmoid-mlp")
    groups: list[str] = []

    def look(block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        bound = bound_block(block)
        inputs = bound.inputs(bound.name_arguments(args, kwargs))
        routers = bound.attached.routers[bound.group]
        scores = torch.sigmoid(router_logits(inputs.routed, routers[bound.row]))

        def scaled(values: Tensor) -> Any:
            return run_block(block, inputs.arguments, inputs.over_rows(values))

        whole, without = scaled(torch.ones_like(scores)), scaled(torch.zeros_like(scores))
        assert_equal(tensors(whole), tensors(bound.run(block, inputs.arguments)))
        after, before = inputs.routed_of(whole), inputs.routed_of(without)
        assert ((after - before).norm(dim=-1) > 1e-3 * after.norm(dim=-1)).all()
        expected = inputs.with_routed(whole, torch.lerp(before, after, scores.unsqueeze(-1)))
        assert_close(tensors(output), tensors(expected), 1e-6)
        groups.append(bound.group)

    for block in host_blocks(transformer):
        if block.row == 0:
            block.module.register_forward_hook(look, with_kwargs=True)
    forward(transformer, host.inputs(2, 0))
    assert groups == list(family_of(transformer).block_groups)


def neighbours_change_nothing(host: TinyHost) -> None:
    """A sample alone is what it is in a batch."""
    transformer = routed(host)
    together = forward(transformer, host.inputs(3, 0))
    alone = forward(transformer, host.inputs(1, 0))
    for one, batch in zip(alone, _of_first(together, len(alone), 3), strict=True):
        assert_close([batch], [one], host.batch_error)


def _of_first(outputs: list[Tensor], alone: int, batch: int) -> list[Tensor]:
    """Of a batch's outputs the first sample's: a class gives lists of samples, or tensors."""
    if len(outputs) > alone:
        return outputs[::batch]
    return [output[:1] for output in outputs]


def regions_mix(host: TinyHost) -> None:
    """Samples of different regions in one call are what they are in calls of their own."""
    transformer = routed(host, timestep_regions=2)
    ratios = torch.zeros(get_compressor(transformer).ratios.shape)
    ratios[:, 0], ratios[:, 1], ratios[::2, 1] = 0.3, 0.6, 0.0
    get_compressor(transformer).set_compression_ratios(ratios)
    given, levels = host.inputs(3, 0), [0.2, 0.9, 0.3]
    together = forward(transformer, host.with_timesteps(given, levels))
    for level in (0.2, 0.9):
        own = forward(transformer, host.with_timesteps(given, [level] * 3))
        sample = levels.index(level)
        for one, batch in zip(_sample(own, sample, 3), _sample(together, sample, 3), strict=True):
            assert_close([batch], [one], host.batch_error)


def _sample(outputs: list[Tensor], sample: int, batch: int) -> list[Tensor]:
    if all(output.shape[0] == batch for output in outputs):
        return [output[sample] for output in outputs]
    return outputs[sample::batch]


def a_copy_is_its_own(host: TinyHost) -> None:
    """A deep copy gives the same, and changing it leaves the original alone."""
    transformer, given = routed(host), host.inputs(2, 0)
    expected = forward(transformer, given)
    copy = deepcopy(transformer)
    assert_equal(forward(copy, given), expected)
    get_compressor(copy).set_compression_ratios(0.9)
    assert not torch.equal(forward(copy, given)[0], expected[0])
    assert_equal(forward(transformer, given), expected)


def saves_and_loads(host: TinyHost) -> None:
    """A checkpoint with a LoRA, loaded into a fresh model, gives the same."""
    transformer, given = routed(host), host.inputs(2, 0)
    diffcr.add_lora(transformer, rank=2)
    generator = torch.Generator().manual_seed(1)
    adapted = 0
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
                adapted += 1
    assert adapted >= len(host_blocks(transformer))
    inside = tuple(f"{group}." for group in family_of(transformer).block_groups)
    names = [name for name, _ in transformer.named_parameters() if ".lora_" in name]
    assert all(name.startswith(inside) for name in names), names
    expected = forward(transformer, given)
    other = host.make()
    with TemporaryDirectory() as directory:
        diffcr.save(transformer, Path(directory) / "saved")
        diffcr.load(other, Path(directory) / "saved")
    assert_equal(forward(other, given), expected)


def _loss(transformer: nn.Module, inputs: dict[str, Any]) -> Tensor:
    outputs = tensors(transformer(**inputs))
    return torch.stack([output.float().square().mean() for output in outputs]).sum()


def _gradients(transformer: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in transformer.named_parameters() if p.grad is not None}


def checkpoints_gradients(host: TinyHost) -> None:
    """Gradients in training, also of routers and ratios, are the same with recomputation."""
    given = host.inputs(2, 0)
    found = []
    for recomputes in (False, True):
        transformer = routed(host, 0.3, branching="both").train()
        get_compressor(transformer).ratios.data.add_(0.05)
        if recomputes:
            transformer.enable_gradient_checkpointing()
        # DiT drops classes at random.
        torch.manual_seed(0)
        _loss(transformer, given).backward()
        found.append(_gradients(transformer))
    plain, recomputed = found
    assert plain.keys() == recomputed.keys()
    assert plain["diffcr.ratios"].abs().sum() > 0
    for name, gradient in plain.items():
        assert_close([recomputed[name]], [gradient], 1e-5) if gradient.norm() > 1e-12 else None


def compiles(host: TinyHost) -> None:
    """Compiled block by block, without a graph break, the result is the same."""
    transformer, given = routed(host), host.inputs(2, 0)
    expected = forward(transformer, given)
    diffcr.compile(transformer, backend="eager")
    assert_close(forward(transformer, given), expected, 1e-6)


def merges(host: TinyHost) -> None:
    """Token merging around whole blocks: nothing merged is exact, a half is finite and other."""
    transformer, given = host.make(), host.inputs(2, 0)
    bare = forward(transformer, given)
    diffcr.attach(transformer, diffcr.ToMeConfig(0.0, placement="block"))
    assert_equal(forward(transformer, given), bare)
    diffcr.detach(transformer)
    diffcr.attach(transformer, diffcr.ToMeConfig(0.5, placement="block"))
    merged = forward(transformer, given)
    assert all(output.isfinite().all() for output in merged)
    assert not torch.equal(merged[0], bare[0])


def reuses_steps(host: TinyHost) -> None:
    """The first step is exact; a skipped step runs no block, and adds what the last one added."""
    transformer, given = host.make(), host.inputs(2, 0)
    bare = forward(transformer, given)
    diffcr.attach(transformer, diffcr.ReuseConfig(0.5, granularity="steps", dense_above=0.95))
    calls: list[nn.Module] = []
    for block in host_blocks(transformer):
        for linear in block.layout.first_layers(block.module).values():
            linear.register_forward_hook(lambda module, *_: calls.append(module))
    counts = []
    for level in (0.6, 0.5, 0.4, 0.3):
        calls.clear()
        outputs = forward(transformer, host.with_timesteps(given, [level] * 2))
        assert all(output.isfinite().all() for output in outputs)
        counts.append(len(calls))
        if level == 0.6:
            assert_equal(outputs, bare)
    assert min(counts) == 0 < max(counts), counts


def every_method(host: TinyHost) -> None:
    """What the table of methods says works changes the result and goes without a trace; the others
    are refused for the reason that it gives."""
    transformer, one = host.make(), host.inputs(2, 0)
    given = [host.with_timesteps(one, [level] * 2) for level in (0.6, 0.5, 0.4, 0.3)]
    bare = [forward(transformer, inputs) for inputs in given]
    refusals = method_refusals(family_of(transformer))
    for name, config in CONFIGURATIONS.items():
        if name in refusals:
            with pytest.raises(DiffCRError, match=re.escape(refusals[name])):
                diffcr.attach(transformer, config)
            continue
        attached = diffcr.attach(transformer, config)
        if isinstance(attached, Compressor):
            attached.set_compression_ratios(0.5)
        outputs = [forward(transformer, inputs) for inputs in given]
        assert all(tensor.isfinite().all() for output in outputs for tensor in output), name
        changed = [not torch.equal(o[0], b[0]) for o, b in zip(outputs, bare, strict=True)]
        assert any(changed), name
        with diffcr.disabled(transformer):
            assert_equal(forward(transformer, given[0]), bare[0])
        diffcr.detach(transformer)
        assert_equal(forward(transformer, given[-1]), bare[-1])


FEATURES: dict[str, Callable[[TinyHost], None]] = {
    "exact at 0": fresh_is_exact,
    "half of the tokens": half_is_masked_attention,
    "neighbours": neighbours_change_nothing,
    "mixed regions": regions_mix,
    "deep copy": a_copy_is_its_own,
    "save, load, LoRA": saves_and_loads,
    "gradient checkpointing": checkpoints_gradients,
    "compiled blocks": compiles,
    "token merging": merges,
    "reuse of steps": reuses_steps,
    "gate sigmoid-mlp": sigmoid_mlp_scales,
    "every method": every_method,
    "training": trains,
}
