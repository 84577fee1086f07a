"""Which weights a checkpoint was trained on: a configuration hash and sampled weights."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from diffcr.core.sharded import is_split

SAMPLES = 1024
TOLERANCE = 1e-2
# Of the values that two partly quantised models share, those that have to be within the tolerance.
_LEAST_AGREEMENT = 0.95
_SMALLEST = 1e-6
_PER_PARAMETER = 16
_UNRELATED_CONFIG = (
    "_name_or_path",
    "_class_name",
    "_diffusers_version",
    "_use_default_values",
    "quantization_config",
    "_pre_quantization_dtype",
)


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Identity of a base model.

    Attributes:
        model_id: Name or path that the model was loaded from, empty where unknown.
        config_hash: SHA-256 of the transformer's configuration.
        weights: Sampled weights, [1024] float32 on the CPU; nan where they are quantised.
        beside: Sampled from the parameters that quantisation leaves, which are all but the weights
            of linear layers, likewise; None where there are none, or none were remembered.
    """

    model_id: str
    config_hash: str
    weights: Tensor
    beside: Tensor | None = None

    def matches(self, other: Fingerprint) -> bool:
        """Equal configurations, and weights within 1e-2 of each other (relative norm): float16 and
        bfloat16 loads of the same weights pass.

        Where weights of one are quantised, the values that neither has quantised decide: 95 % of
        them are within 1e-2 of each other."""
        if self.config_hash != other.config_hash:
            return False
        gap = (self.weights - other.weights).norm()
        if not gap.isnan():
            return bool(gap <= TOLERANCE * self.weights.norm())
        ours, theirs = self.weights, other.weights
        if self.beside is not None and other.beside is not None:
            ours, theirs = torch.cat([ours, self.beside]), torch.cat([theirs, other.beside])
        # What a fresh parameter holds tells no models apart.
        initial = (ours == theirs) & ((ours == 0) | (ours == 1))
        compared = ~(ours - theirs).isnan() & ~initial
        alike = (ours - theirs).abs() <= TOLERANCE * ours.abs() + _SMALLEST
        return bool(alike[compared].float().mean() >= _LEAST_AGREEMENT)

    def describe(self) -> str:
        """For messages: the model's name and a short hash of what identifies it."""
        rounded = self.weights.to(torch.bfloat16).view(torch.int16).numpy().tobytes()
        digest = hashlib.sha256(self.config_hash.encode() + rounded).hexdigest()[:12]
        return f"{self.model_id or 'a model without a name'} [{digest}]"


@dataclass(frozen=True, eq=False)
class HostWeights:
    """The host's weights when a compressor was made, as far as they are remembered.

    Attributes:
        fingerprint: What identifies them, None for a model without data (meta device).
        samples: Of every parameter a few values, float32 on the CPU: an optimizer changes all of a
            parameter's values, and a small parameter may have none in the fingerprint.
    """

    fingerprint: Fingerprint | None
    samples: dict[str, Tensor]

    @classmethod
    def of(cls, transformer: nn.Module) -> HostWeights:
        """The weights as they are."""
        return cls(take_fingerprint(transformer), _take_samples(host_parameters(transformer)))

    def replaced_by(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> HostWeights:
        """The same base model, whose parameters a method replaced by others of the same names."""
        return replace(self, samples=_take_samples(parameters))

    def have_changed(self, transformer: nn.Module) -> bool:
        """Whether they differ by more than a cast, a cast and back, or quantisation."""
        present = _take_samples(host_parameters(transformer))
        return any(
            not any(
                torch.equal(present[name].to(parameter.dtype), before.to(cast).to(parameter.dtype))
                for cast in (torch.float32, torch.float16, torch.bfloat16)
            )
            for name, parameter in host_parameters(transformer)
            if name in present and (before := self.samples.get(name)) is not None
        )


def _take_samples(parameters: Iterable[tuple[str, nn.Parameter]]) -> dict[str, Tensor]:
    samples = {}
    for name, parameter in parameters:
        if not parameter.is_meta and not is_quantised(parameter):
            values = parameter.detach().flatten()[:: parameter.numel() // _PER_PARAMETER + 1]
            samples[name] = values.to("cpu", torch.float32, copy=True)
    return samples


def host_parameters(transformer: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The host's own parameters by their names without adapters and compressor."""
    for name, parameter in transformer.named_parameters():
        if not name.startswith("diffcr.") and ".lora_" not in name:
            yield name.replace(".base_layer.", "."), parameter


def is_quantised(parameter: Tensor) -> bool:
    """Whether a parameter's values are held in less than 16 bits, or by a library in a tensor of
    its own: torchao, bitsandbytes, GGUF, float8 storage."""
    if not parameter.is_floating_point() or parameter.element_size() < 2:
        return True
    return is_traceable_wrapper_subclass(parameter) and not is_split(parameter)


def take_fingerprint(transformer: nn.Module) -> Fingerprint | None:
    """Fingerprint of the weights as they are; None for a model without data (meta device).

    1024 positions drawn over all parameters by size, the same for the same configuration, however
    it is quantised.
    """
    parameters = sorted(host_parameters(transformer), key=lambda item: item[0])
    if any(parameter.is_meta for _, parameter in parameters):
        return None
    config: Any = getattr(transformer, "config", {})
    model_id = _public_name(str(config.get("_name_or_path") or ""))
    linear = _linear_sizes(transformer)
    sizes = [linear.get(name, parameter.numel()) for name, parameter in parameters]
    values = [parameter for _, parameter in parameters]
    others = [row for row, (name, _) in enumerate(parameters) if name not in linear]
    beside = None
    if others:
        beside = _sample([values[row] for row in others], [sizes[row] for row in others])
    return Fingerprint(model_id, _hash_config(config), _sample(values, sizes), beside)


def _linear_sizes(transformer: nn.Module) -> dict[str, int]:
    """Weights of linear layers by name, with their numbers of values: packed ones hold fewer."""
    return {
        f"{name}.weight".replace(".base_layer.", "."): module.in_features * module.out_features
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear)
    }


def _sample(parameters: list[nn.Parameter], sizes: list[int]) -> Tensor:
    draw = random.Random(0)
    picks = sorted(draw.choices(range(len(parameters)), weights=sizes, k=SAMPLES))
    sampled = []
    for index in sorted(set(picks)):
        parameter = parameters[index].detach()
        places = [draw.randrange(sizes[index]) for _ in range(picks.count(index))]
        if is_quantised(parameter):
            sampled.append(torch.full((len(places),), math.nan))
            continue
        flat = parameter.reshape(-1)
        sampled.append(flat[torch.tensor(places, device=flat.device)].float().cpu())
    return torch.cat(sampled)


def _public_name(name_or_path: str) -> str:
    """A Hub id as it is, also from the Hub cache's folder; of another path the last two parts: a
    shared checkpoint says nothing of its maker's disk."""
    parts = Path(name_or_path).parts
    for part in parts:
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/", 1)
    return "/".join(parts[-2:])


def _hash_config(config: Any) -> str:
    relevant = {key: value for key, value in config.items() if key not in _UNRELATED_CONFIG}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True, default=str).encode()).hexdigest()
