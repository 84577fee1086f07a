"""fit_bypass: what skipped tokens get from their layers, in closed form from a few prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from diffcr.binding.model import get_compressor
from diffcr.core.select import rank_tokens
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.evaluation.generate import Generation
from diffcr.evaluation.modes import evaluating
from diffcr.evaluation.sampling_runs import SamplingRuns
from diffcr.hosts import find_transformer
from diffcr.hosts.host import host_blocks
from diffcr.hosts.sampling import OutputSize, without_progress
from diffcr.methods.bound import BoundBlock, bound_block
from diffcr.methods.diffcr.bypass import BypassMap
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.diffcr.ratios import kept_tokens
from diffcr.validation import between


@dataclass(frozen=True)
class BypassFit:
    """How well the fitted maps tell what their layers would have added.

    Attributes:
        explained: Per layer, 1 - (squared error of the map) / (squared updates), at most 1, over
            the tokens that it was fitted on; the bypass "identity" has 0.
        tokens: Per layer, how many those were.
    """

    explained: tuple[float, ...]
    tokens: tuple[int, ...]


def fit_bypass(
    pipe: Any,
    prompts: Sequence[str],
    bypass_rank: int = 16,
    num_inference_steps: int = 20,
    guidance_scale: float = 4.5,
    seed: int = 0,
    batch_size: int = 8,
    ridge: float = 1e-4,
    progress: bool = True,
    size: OutputSize | None = None,
) -> BypassFit:
    """Give skipped tokens a linear map of themselves, fitted to what their layers would have added.

    The prompts are sampled with every compression ratio at 0; then the ratios are again what they
    were. Of every layer the tokens that its router would skip are looked at, all where it skips
    none, and their updates are fitted by reduced-rank ridge regression (Mukherjee and Zhu 2011)
    with an intercept per timestep region. The host's weights, routers and ratios stay. The bypass
    of the model is "linear" afterwards, whatever it was.

    The sums need 16 D^2 bytes for each of L layers of width D, in float64 beside the model: 0.6 GB
    for PixArt XL/2, 8.6 GB for FLUX.1. The same call gives the same maps.

    Args:
        pipe: A text-to-image or text-to-video pipeline with `DiffCRConfig` or `MoDConfig` attached.
        prompts: A few, such as 8 to 32, like those that the pipeline is for.
        bypass_rank: Rank of the maps, 1 to the model's width.
        num_inference_steps: Denoising steps of the runs.
        guidance_scale: Of classifier-free guidance.
        seed: Of the first prompt's noise; prompt i gets `seed + i`.
        batch_size: Prompts per call of the pipeline.
        ridge: Penalty on the maps as a share of the tokens' mean variance, in [1e-12, 1].
        progress: Whether to show a progress bar.
        size: Of the pictures or videos, the pipeline's own by default.

    Raises:
        DiffCRError: Nothing with routers is attached, a number is outside its range, or a layer's
            tokens are not finite.
    """
    transformer = find_transformer(pipe)
    compressor = get_compressor(transformer)
    generation = Generation(seed, num_inference_steps, guidance_scale, batch_size=batch_size)
    between(1e-12, 1).check("ridge", ridge)
    between(1, compressor.width).check("bypass_rank", bypass_rank)
    runs = SamplingRuns(pipe, prompts, generation, size or OutputSize())
    moments = [_Moments(compressor.timestep_regions) for _ in compressor.ratios]
    bar = tqdm(total=len(prompts), desc="fitting", unit="image", disable=not progress)
    with (
        evaluating(transformer),
        without_progress(pipe),
        _collecting(transformer, compressor, moments),
        bar,
    ):
        runs.latents(bar)
    fitted = [layer.fit(bypass_rank, ridge) for layer in moments]
    compressor.set_bypass("linear", bypass_rank)
    assert compressor.linear_bypass is not None
    with torch.no_grad():
        for own, found in zip(compressor.linear_bypass.of_layers(), fitted, strict=True):
            for parameter, values in zip(own, found, strict=True):
                parameter.copy_(values)
    shares = (m.explained(maps) for m, maps in zip(moments, fitted, strict=True))
    return BypassFit(tuple(shares), tuple(int(layer.counts.sum()) for layer in moments))


class _Moments:
    """Sums over tokens x [M, D] and their updates y [M, D] of a layer, in float64.

    Attributes:
        counts: Tokens by region, [R].
        inputs: Sums of x by region, [R, D].
        updates: Sums of y by region, [R, D].
        gram: Sum of x x^T, [D, D].
        cross: Sum of x y^T, [D, D].
        squares: Sum of the squares of y.
    """

    def __init__(self, regions: int) -> None:
        self.counts = torch.zeros(regions, dtype=torch.float64)
        self.inputs = self.updates = self.gram = self.cross = torch.empty(0)
        self.squares = 0.0

    def add(self, region: int, inputs: Tensor, updates: Tensor) -> None:
        """Take more tokens of a region in."""
        # Apple's GPUs have no float64.
        device = "cpu" if inputs.device.type == "mps" else inputs.device
        x, y = (values.to(device, torch.float64) for values in (inputs, updates))
        if not self.gram.numel():
            width = x.shape[1]
            self.inputs, self.updates = x.new_zeros(2, len(self.counts), width)
            self.gram, self.cross = x.new_zeros(2, width, width)
        self.counts[region] += len(x)
        self.inputs[region] += x.sum(0)
        self.updates[region] += y.sum(0)
        self.gram.addmm_(x.T, x)
        self.cross.addmm_(x.T, y)
        self.squares += float(y.square().sum())

    def fit(self, rank: int, ridge: float) -> BypassMap:
        """The map of least squared error and penalty among those of a rank."""
        gram, cross = self._centred()
        penalty = ridge * float(gram.diagonal().mean())
        if not bool((gram.isfinite() & cross.isfinite()).all()):
            raise DiffCRError("a layer's tokens are not finite: take another precision")
        regular = gram + max(penalty, torch.finfo(torch.float64).tiny) * torch.eye(
            len(gram), dtype=gram.dtype, device=gram.device
        )
        full = torch.linalg.solve(regular, cross)
        # Directions of the output that the full map explains most of.
        explained = cross.T @ full
        directions = torch.linalg.eigh((explained + explained.T) / 2).eigenvectors[:, -rank:]
        down, up = full @ directions, directions.T
        # A region that no step was in gets the mean of the others.
        counts = self.counts.to(gram.device).unsqueeze(1)
        seen = counts > 0
        x = torch.where(seen, self.inputs, self.inputs.sum(0))
        y = torch.where(seen, self.updates, self.updates.sum(0))
        return BypassMap(down, up, (y - x @ down @ up) / torch.where(seen, counts, counts.sum()))

    def explained(self, maps: BypassMap) -> float:
        """As `BypassFit.explained`."""
        gram, cross = self._centred()
        product = maps.down @ maps.up
        gained = 2 * (product * cross).sum() - (product * (gram @ product)).sum()
        counts = self.counts.to(gram.device).clamp(min=1).unsqueeze(1)
        by_bias = (self.updates.square() / counts).sum()
        return float(gained + by_bias) / max(self.squares, torch.finfo(torch.float64).tiny)

    def _centred(self) -> tuple[Tensor, Tensor]:
        counts = self.counts.to(self.gram.device).clamp(min=1).unsqueeze(1)
        means = self.inputs / counts
        return self.gram - means.T @ self.inputs, self.cross - means.T @ self.updates


@contextmanager
def _collecting(
    transformer: nn.Module, compressor: Compressor, moments: Sequence[_Moments]
) -> Iterator[None]:
    """Within the context every token is computed, and the layers' tokens are taken in."""
    ratios, bins = compressor.ratios.detach().clone(), compressor.inference_bins()

    # Of the layers that rank, by layer and region, until the next call.
    scored: dict[tuple[int, int], Tensor] = {}

    def look(block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        bound: BoundBlock[Compressor] = bound_block(block)
        inputs = bound.inputs(bound.name_arguments(args, kwargs))
        before = inputs.routed.detach()
        update = inputs.routed_of(output).detach() - before
        first = compressor.ranking_layer(bound.layer)
        for plan in compressor.context.regions:
            x, y = (v if plan.samples is None else v[plan.samples] for v in (before, update))
            if first == bound.layer:
                scored[first, plan.region] = compressor.router_logits(first, x)
            kept = kept_tokens(inputs.tokens, bins[bound.layer][plan.region])
            if kept < inputs.tokens:
                dropped = rank_tokens(scored[first, plan.region])[:, kept:].unsqueeze(-1)
                x, y = (v.take_along_dim(dropped, 1) for v in (x, y))
            moments[bound.layer].add(plan.region, x.flatten(0, 1), y.flatten(0, 1))

    hooks = [
        block.module.register_forward_hook(look, with_kwargs=True)
        for block in host_blocks(transformer)
    ]
    with torch.no_grad(), catch_warnings():
        # That ratios of 0 save nothing.
        simplefilter("ignore", DiffCRWarning)
        compressor.ratios.zero_()
        try:
            yield
        finally:
            compressor.ratios.copy_(ratios)
            for hook in hooks:
                hook.remove()
