"""What a sample gets depends on itself, its region and its layer's ratio alone."""

from __future__ import annotations

import pytest
import torch

from diffcr.binding.attachment import attach
from diffcr.errors import DiffCRError
from diffcr.methods.diffcr.config import DiffCRConfig
from tests.hosts import denoise, inputs, pixart, rankings, scramble, trained_pixart


def _at_compression(ratio: float, gate: str = "identity") -> torch.nn.Module:
    transformer = pixart()
    compressor = attach(transformer, DiffCRConfig(max_compression_ratio=1.0, gate=gate))  # type: ignore[arg-type]
    scramble(compressor)
    compressor.set_compression_ratios(ratio)
    return transformer


@pytest.mark.parametrize("training", [False, True])
def test_neighbours_never_change_a_result(training: bool) -> None:
    transformer = trained_pixart().train(training)
    transformer.diffcr.seed_branches(7)
    mine, others = inputs(4), inputs(4, seed=9)
    mixed = inputs(4)
    mixed.latents[1:] = others.latents[1:]
    mixed.prompt_embeds[1:] = others.prompt_embeds[1:]
    assert torch.equal(denoise(transformer, mine)[0], denoise(transformer, mixed)[0])


def test_nothing_of_a_call_outlives_it() -> None:
    transformer = trained_pixart()
    current = transformer.diffcr.current
    denoise(transformer, inputs())
    assert current.call is None and current.context is None
    with pytest.raises(RuntimeError):
        denoise(transformer, inputs().at(torch.tensor([1, 2, 3])))
    assert current.call is None and current.context is None


def test_batch_size_changes_a_result_by_rounding_only() -> None:
    transformer = trained_pixart()
    held = rankings(4)
    with transformer.diffcr.holding_rankings(held):
        together = denoise(transformer, inputs(4))
    for i in range(4):
        with transformer.diffcr.holding_rankings({k: v[i : i + 1] for k, v in held.items()}):
            alone = denoise(transformer, inputs(4).only(slice(i, i + 1)))
        assert (alone - together[i : i + 1]).abs().max() < 1e-5


@pytest.mark.parametrize("training", [False, True])
def test_mixed_regions_equal_single_runs(training: bool) -> None:
    transformer = trained_pixart(DiffCRConfig(branching="both")).train(training)
    given = inputs(4).at(torch.tensor([900, 10, 300, 20]))
    mixed = denoise(transformer, given)
    for i in range(4):
        alone = denoise(transformer, given.only(slice(i, i + 1)))
        assert (alone - mixed[i : i + 1]).abs().max() < 1e-5


def test_a_neighbour_in_another_region_changes_no_branch_draw() -> None:
    transformer = trained_pixart(DiffCRConfig(branching="sampled")).train()
    transformer.diffcr.seed_branches(11)
    given = inputs(2).at(torch.tensor([900, 10]))
    mixed = denoise(transformer, given)
    alone = denoise(transformer, given.only(slice(0, 1)))
    assert (alone - mixed[:1]).abs().max() < 1e-5


def test_regions_differ_and_a_given_region_is_the_timesteps() -> None:
    transformer = trained_pixart()
    given = inputs().at(torch.tensor([300, 300]))
    by_timestep = denoise(transformer, given)
    with transformer.diffcr.in_region(1):
        assert torch.equal(denoise(transformer, given), by_timestep)
    with transformer.diffcr.in_region(3):
        assert not torch.equal(denoise(transformer, given), by_timestep)
    with (
        pytest.raises(DiffCRError, match="region 4 does not exist"),
        transformer.diffcr.in_region(4),
    ):
        pass


@pytest.mark.parametrize("dtype", [torch.int32, torch.float16, torch.float32, torch.float64])
def test_forms_of_a_timestep_that_the_host_accepts(dtype: torch.dtype) -> None:
    transformer = trained_pixart()
    expected = denoise(transformer, inputs().at(torch.tensor([300, 300])))
    timesteps = torch.tensor([300, 300], dtype=dtype)
    assert torch.equal(denoise(transformer, inputs().at(timesteps)), expected)
    expanded = torch.tensor(300, dtype=dtype).expand(2)
    assert torch.equal(denoise(transformer, inputs().at(expanded)), expected)


def test_a_timestep_outside_the_noise_range_is_refused() -> None:
    transformer = trained_pixart()
    with pytest.raises(DiffCRError, match=r"timestep 1500 is outside \[0, 1000\]"):
        denoise(transformer, inputs().at(torch.tensor([10, 1500])))


def test_one_region_reads_no_timestep() -> None:
    transformer = trained_pixart(DiffCRConfig(timestep_regions=1))
    assert not transformer.diffcr.reads_timesteps
    a = denoise(transformer, inputs())
    assert torch.isfinite(a).all()


def test_a_skipped_stack_returns_its_input() -> None:
    transformer = _at_compression(1.0)
    seen = []
    hook = transformer.transformer_blocks[0].register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]),
        with_kwargs=True,
    )
    outputs = []
    transformer.transformer_blocks[2].register_forward_hook(lambda *call: outputs.append(call[-1]))
    denoise(transformer, inputs())
    hook.remove()
    assert torch.equal(seen[0], outputs[0])


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_bypassed_tokens_keep_their_input_and_kept_ones_see_only_each_other(ratio: float) -> None:
    transformer = _at_compression(ratio)
    block = transformer.transformer_blocks[0]
    calls = []
    block.register_forward_hook(
        lambda _, args, kwargs, output: calls.append((args, kwargs, output)), with_kwargs=True
    )
    denoise(transformer, inputs())
    args, kwargs, output = calls[0]
    hidden = args[0] if args else kwargs.pop("hidden_states")
    kept = transformer.diffcr.kept_tokens(16)[0][2]
    logits = transformer.diffcr.router_logits(0, hidden)
    for sample in range(2):
        top = logits[sample].topk(kept).indices.sort().values
        rest = [i for i in range(16) if i not in top.tolist()]
        assert torch.equal(output[sample, rest], hidden[sample, rest])
        alone = {
            k: v[sample : sample + 1] if isinstance(v, torch.Tensor) else v
            for k, v in kwargs.items()
        }
        dense = type(block).forward(block, hidden[sample : sample + 1, top], **alone)[0]
        gate = 2 * logits[sample, top].sigmoid().unsqueeze(-1)
        expected = hidden[sample, top] + gate * (dense - hidden[sample, top])
        assert (output[sample, top] - expected).abs().max() < 1e-5


def test_gates_scale_what_they_say() -> None:
    given = inputs()
    bare = pixart()
    ff_scaled = pixart()
    ff_scaled.transformer_blocks[0].ff.register_forward_hook(lambda *call: call[-1] * 0.5)
    expected = {}
    for name, host in (("bare", bare), ("ff", ff_scaled)):
        host.transformer_blocks[0].register_forward_hook(
            lambda _, args, kwargs, out, key=name: expected.update({key: (args, kwargs, out)}),
            with_kwargs=True,
        )
        denoise(host, given)
    args, kwargs, whole = expected["bare"]
    hidden = args[0] if args else kwargs["hidden_states"]
    wanted = {"sigmoid": hidden + 0.5 * (whole - hidden), "sigmoid-mlp": expected["ff"][2]}
    for gate, value in wanted.items():
        transformer = pixart()
        attach(transformer, DiffCRConfig(gate=gate))  # type: ignore[arg-type]
        seen = []
        transformer.transformer_blocks[0].register_forward_hook(
            lambda *call, seen=seen: seen.append(call[-1])
        )
        denoise(transformer, given)
        assert (seen[0] - value).abs().max() < 1e-6


def test_resolution_may_change_between_calls() -> None:
    transformer = trained_pixart()
    for size in (8, 16, 8):
        given = inputs(size=size)
        assert denoise(transformer, given).shape == (2, 8, size, size)
