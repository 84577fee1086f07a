"""load: a checkpoint on the base model that it belongs to, all of it or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, overload

import torch
from torch import nn

from diffcr.binding import lora
from diffcr.binding.attachment import attach, detach
from diffcr.binding.model import get_attached, is_attached
from diffcr.checkpoint.stored import (
    Checkpoint,
    read_checkpoint,
    resolve_checkpoint,
    stored_parts,
)
from diffcr.errors import DiffCRError
from diffcr.hosts import family_of, find_transformer, find_transformers
from diffcr.hosts.weights import HostWeights, host_parameters, is_quantised
from diffcr.methods.base import Attached
from diffcr.methods.config import MethodConfig
from diffcr.methods.step_caches.config import StepCacheConfig

_READ_BY_TRAINING = ("target_compression_ratio", "branching", "mixing_probability")


@overload
def load(
    pipe_or_transformer: nn.Module, directory_or_hub_id: str | Path, revision: str | None = None
) -> Attached[Any, Any]: ...
@overload
def load(
    pipe_or_transformer: Any, directory_or_hub_id: str | Path, revision: str | None = None
) -> Attached[Any, Any] | dict[str, Attached[Any, Any]]: ...
def load(
    pipe_or_transformer: Any, directory_or_hub_id: str | Path, revision: str | None = None
) -> Attached[Any, Any] | dict[str, Attached[Any, Any]]:
    """Attach a saved checkpoint to the base model that it was trained on.

    Everything is read and checked before a weight of the model is changed.

    Args:
        pipe_or_transformer: The bare pipeline or transformer, or one with the same configuration
            attached.
        directory_or_hub_id: A directory that `save` wrote, or a Hub repository of such files.
        revision: Of the Hub repository.

    Returns:
        As `attach`.

    Raises:
        DiffCRError: There is no checkpoint, it is damaged, or it belongs to another base model.
    """
    parts = find_transformers(pipe_or_transformer)
    for transformer in parts.values():
        family_of(transformer)
    directory = resolve_checkpoint(directory_or_hub_id, revision)
    if len(parts) == 1:
        checkpoint = read_checkpoint(directory)
        return _put(next(iter(parts.values())), checkpoint, checkpoint.config)
    places = stored_parts(directory)
    if places.keys() != parts.keys():
        raise DiffCRError(
            f"{directory} holds no checkpoint for each of {' and '.join(parts)}: load one into its "
            f"transformer, as in diffcr.load(pipe.{next(iter(parts))}, ...)"
        )
    return _put_all(parts, {name: read_checkpoint(place) for name, place in places.items()})


def _put_all(
    parts: dict[str, nn.Module], checkpoints: dict[str, Checkpoint]
) -> dict[str, Attached[Any, Any]]:
    bare = [part for part in parts.values() if not is_attached(part)]
    for name, part in parts.items():
        _check_base(part, _base_of(part), checkpoints[name])
    try:
        return {
            name: _put(part, checkpoints[name], checkpoints[name].config)
            for name, part in parts.items()
        }
    except DiffCRError:
        for part in bare:
            if is_attached(part):
                detach(part, restore=True)
        raise


def load_to_train(
    pipe_or_transformer: Any, directory_or_hub_id: str | Path, config: MethodConfig
) -> Attached[Any, Any]:
    """As `load`, with a configuration that may differ in what training alone reads: the target
    and the branching of `DiffCRConfig`.

    Raises:
        DiffCRError: As `load`, and the checkpoint is of another method or other settings.
    """
    transformer = find_transformer(pipe_or_transformer)
    checkpoint = read_checkpoint(resolve_checkpoint(directory_or_hub_id))
    stored, wanted = map(_model_settings, (checkpoint.config, config))
    for name in sorted({*stored, *wanted}):
        if stored.get(name) != wanted.get(name):
            raise DiffCRError(
                f"{checkpoint.directory} has {name} {stored.get(name)!r}, the configuration "
                f"{wanted.get(name)!r}: give the checkpoint's"
            )
    return _put(transformer, checkpoint, config)


def _model_settings(config: MethodConfig) -> dict[str, Any]:
    """What a configuration says of the model itself."""
    settings = config.to_json_dict()
    return {name: settings[name] for name in settings if name not in _READ_BY_TRAINING}


def _put(
    transformer: nn.Module, checkpoint: Checkpoint, config: MethodConfig
) -> Attached[Any, Any]:
    present = list(get_attached(transformer).stack()) if is_attached(transformer) else []
    caches = [method.config for method in present if method.hooks_blocks]
    attached = len(present) > len(caches)
    _check_base(transformer, _base_of(transformer), checkpoint)
    beneath = [c for c in checkpoint.beneath if not attached or isinstance(c, StepCacheConfig)]
    loaded = _attach_all(transformer, [*beneath, config])
    try:
        _check_shapes(transformer, loaded, checkpoint)
        lora.replace_lora(transformer, checkpoint.adapter)
    except DiffCRError:
        if not attached:
            detach(transformer)
            for cache in caches:
                attach(transformer, cache)
        raise
    _load_states(loaded, checkpoint)
    host = dict(host_parameters(transformer))
    with torch.no_grad():
        for name, tensor in checkpoint.weights.items():
            host[name].copy_(tensor)
    return loaded


def _base_of(transformer: nn.Module) -> HostWeights:
    if is_attached(transformer):
        return get_attached(transformer).base
    return HostWeights.of(transformer)


def _check_base(transformer: nn.Module, base: HostWeights, checkpoint: Checkpoint) -> None:
    if checkpoint.transformer_class != type(transformer).__name__:
        raise DiffCRError(
            f"{checkpoint.directory} is for a {checkpoint.transformer_class}, this is a "
            f"{type(transformer).__name__}: pass the pipeline's model of that class"
        )
    present = base.fingerprint
    if present is None:
        return
    if not checkpoint.base.matches(present):
        raise DiffCRError(
            f"{checkpoint.directory} was trained on {checkpoint.base.describe()}, "
            f"this model is {present.describe()}: load its own base model first"
        )
    if not checkpoint.weights and base.have_changed(transformer):
        raise DiffCRError(
            f"the model's own weights were changed since it was attached, and "
            f"{checkpoint.directory} belongs to those before: load the base model anew first"
        )


def _check_shapes(
    transformer: nn.Module, attached: Attached[Any, Any], checkpoint: Checkpoint
) -> None:
    expected = attached.state_dict()
    host = dict(host_parameters(transformer))
    unknown = sorted(
        {*expected}.symmetric_difference(checkpoint.state) | {*checkpoint.weights}.difference(host)
    )
    both = [(checkpoint.state, expected), (checkpoint.weights, host)]
    for name in sorted({*checkpoint.weights}.difference(unknown)):
        if is_quantised(host[name]):
            raise DiffCRError(
                f"{checkpoint.directory} brings weights of its own, and {name} of this model is "
                "quantised: load it before quantising"
            )
    misfits = unknown or [
        f"{name} has shape {list(stored[name].shape)} instead of {list(wanted[name].shape)}"
        for stored, wanted in both
        for name in stored
        if stored[name].shape != wanted[name].shape
    ]
    if misfits:
        raise DiffCRError(
            f"{checkpoint.directory} does not fit {type(transformer).__name__}: {misfits[0]}"
        )


def _attach_all(transformer: nn.Module, configs: list[MethodConfig]) -> Attached[Any, Any]:
    *beneath, last = configs
    for config in beneath:
        attach(transformer, config)
    return attach(transformer, last)


def _load_states(attached: Attached[Any, Any], checkpoint: Checkpoint) -> None:
    """Each method its own tensors: one that replaces weights chooses them anew after its own."""
    state = checkpoint.state
    for method in attached.stack():
        own = method.state_dict(prefix="")
        method.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)
        prefix = "beneath."
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
