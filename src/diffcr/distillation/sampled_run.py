"""A sampling run as its transformer saw it, computed again with gradients.

What is compared is what reaches the latents. A step whose update serves the steps after it need not
be right at each of them, but their sum has to: errors of the calls that share an update are added,
each by how far its step moves the latents, and the sum is squared.

Shapes: B prompts, S denoising steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffcr.binding.calls import named_arguments
from diffcr.errors import DiffCRError
from diffcr.hosts import family_of
from diffcr.methods.reuse.reuser import TokenReuser
from diffcr.training.objectives.objective import Objective


@dataclass(frozen=True)
class Call:
    """One call of the transformer.

    Attributes:
        arguments: Of its forward, by name.
        run: Which prompt's embeddings it has: halves of guidance that are called apart are runs of
            their own.
        length: How far its step moves the latents, `Objective.step_lengths`.
        computes: Whether its blocks run; else it reuses the updates of the last call that does.
    """

    arguments: dict[str, Any]
    run: int
    length: float
    computes: bool


@contextmanager
def recording(transformer: Any) -> Iterator[list[dict[str, Any]]]:
    """Within the context the arguments of the transformer's calls are kept, by name."""
    latents = family_of(transformer).latents
    calls: list[dict[str, Any]] = []

    def keep(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = dict(named_arguments(transformer, args, kwargs))
        if isinstance(arguments[latents], Tensor):
            # Samplers may write into them. The prompt's embeddings stay the same tensor.
            arguments[latents] = arguments[latents].clone()
        calls.append(arguments)

    hook = transformer.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def planned_calls(
    transformer: Any, reuser: TokenReuser, recorded: Sequence[dict[str, Any]], objective: Objective
) -> list[Call]:
    """The calls of one sampling run in their order, each with its part in it."""
    family = family_of(transformer)
    scale = family.denoising_scale(transformer.config)
    runs: dict[int, list[int]] = {}
    for place, arguments in enumerate(recorded):
        prompt = arguments.get(family.conditioning) if family.conditioning else None
        first = prompt[0] if isinstance(prompt, list | tuple) else prompt
        runs.setdefault(id(first), []).append(place)
    calls: dict[int, Call] = {}
    for run, places in enumerate(runs.values()):
        given = [torch.as_tensor(recorded[place][scale.argument]) for place in places]
        values = torch.stack([scale.per_sample(value)[0].double().cpu() for value in given])
        lengths = objective.step_lengths(scale.timesteps(values)).tolist()
        visited = reuser.visited_regions([scale.level(float(value)) for value in values])
        for place, length, dense in zip(places, lengths, visited, strict=True):
            calls[place] = Call(recorded[place], run, length, bool(dense))
    return [calls[place] for place in sorted(calls)]


def outputs_of(transformer: Any, calls: Sequence[Call]) -> list[Tensor]:
    """What the model as it is gives for the calls, without gradients."""
    with torch.no_grad():
        return [_predicted(transformer, call) for call in calls]


def differentiate(
    transformer: Any,
    reuser: TokenReuser,
    calls: Sequence[Call],
    targets: Sequence[Tensor],
    guidance: float,
) -> float:
    """Run the calls again as the sampler's, and add the gradients of their error to the parameters.

    Args:
        transformer: In eval mode, with token reuse on.
        reuser: Its token reuse.
        calls: Of one sampling run.
        targets: What each was to give, `outputs_of` the dense model.
        guidance: Scale by which a call that holds a batch without its prompt and, behind it, with
            it is guided; 0 compares the samples of a call one by one.

    Returns:
        The error: squared, mean over latents, summed over the steps that compute.
    """
    owed: dict[int, Tensor] = {}
    total = 0.0

    def settle(run: int) -> float:
        error = owed.pop(run).square().mean()
        error.backward()
        return float(error.detach())

    with torch.enable_grad(), reuser.carrying_gradients():
        for call, target in zip(calls, targets, strict=True):
            if call.computes and call.run in owed:
                total += settle(call.run)
            gap = call.length * _guided(_predicted(transformer, call) - target, guidance)
            owed[call.run] = owed[call.run] + gap if call.run in owed else gap
        for run in list(owed):
            total += settle(run)
    return total


def _guided(gap: Tensor, guidance: float) -> Tensor:
    if not guidance:
        return gap
    without, with_prompt = gap.chunk(2)
    return without + guidance * (with_prompt - without)


def _predicted(transformer: Any, call: Call) -> Tensor:
    """The model's output without a learned variance, in float32 at least."""
    output = transformer(**{**call.arguments, "return_dict": False})[0]
    latents = call.arguments[family_of(transformer).latents]
    if isinstance(output, list):
        output = torch.stack(output)
    if not isinstance(output, Tensor):
        raise DiffCRError(f"{type(transformer).__name__} gives no tensor: it cannot be distilled")
    if isinstance(latents, Tensor) and latents.dim() > 3:
        # Behind it may stand a variance that is learned.
        output = output[:, : latents.shape[1]]
    return output.to(torch.promote_types(output.dtype, torch.float32))
