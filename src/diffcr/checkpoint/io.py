"""save and load: a directory of JSON and safetensors, nothing that has to be unpickled.

diffcr_config.json     method, configuration, base model, ratios for people, versions
diffcr.safetensors     routers, learned ratios, sampled weights of the base model
adapter/               the LoRA in peft's format, where there is one
transformer.safetensors  the host's weights, where training changed them
README.md              model card
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import warn

import torch
from torch import Tensor, nn

from diffcr.binding import lora
from diffcr.binding.attachment import attach, detach
from diffcr.binding.model import get_attached, is_attached
from diffcr.checkpoint.card import model_card
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.files import read_json, read_tensors, replacing_directory
from diffcr.hardware import library_versions
from diffcr.hosts import family_of, find_transformer
from diffcr.hosts.weights import Fingerprint, HostWeights, host_parameters
from diffcr.methods.base import Attached
from diffcr.methods.configurations import (
    AttachedConfig,
    DenseConfig,
    config_from_json_dict,
    config_to_json_dict,
)

CONFIG_FILE = "diffcr_config.json"
STATE_FILE = "diffcr.safetensors"
WEIGHTS_FILE = "transformer.safetensors"
ADAPTER_DIRECTORY = "adapter"
_FORMAT = 1
_READ_BY_TRAINING = ("target_compression_ratio", "branching", "mixing_probability")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint directory, read and checked, not yet in a model."""

    directory: Path
    transformer_class: str
    config: AttachedConfig
    base: Fingerprint
    state: dict[str, Tensor]
    adapter: lora.Adapter | None
    weights: dict[str, Tensor]


def save(pipe_or_transformer: Any, directory: str | Path, weights: bool | None = None) -> Path:
    """Write what was trained: routers, ratios, the LoRA and, where they changed, host weights.

    The directory appears complete or not at all; an existing checkpoint there is replaced.

    Args:
        pipe_or_transformer: An attached pipeline or transformer.
        directory: Where to.
        weights: Whether to store the host's own weights; by default, when they differ from those
            that the model was attached with.

    Raises:
        DiffCRError: DiffCR is not attached, the directory holds something else, or the weights to
            write are not in their place.
    """
    transformer = find_transformer(pipe_or_transformer)
    attached = get_attached(transformer)
    if attached.replaces_weights and not attached.enabled:
        raise DiffCRError(
            "within diffcr.disabled the model holds its dense weights: save outside of it"
        )
    target = Path(directory)
    if target.exists() and any(target.iterdir()) and not (target / CONFIG_FILE).exists():
        raise DiffCRError(f"{target} holds other files: give an empty or a checkpoint directory")
    with replacing_directory(target) as written:
        _write(written, transformer, attached, weights)
    return target


def _write(
    directory: Path, transformer: nn.Module, attached: Attached[Any, Any], weights: bool | None
) -> None:
    from safetensors.torch import save_file

    base = attached.base.fingerprint
    if base is None:
        raise DiffCRError("the model was attached without weights (meta device): nothing to save")
    state = {k: v.detach().cpu().contiguous() for k, v in attached.state_dict().items()}
    save_file({**state, "base_weights": base.weights}, directory / STATE_FILE)
    if lora.has_lora(transformer):
        lora.save_lora(transformer, directory / ADAPTER_DIRECTORY)
    if foreign := lora.foreign_adapters(transformer):
        warn(
            f"the adapter {foreign[0]!r} is not DiffCR's and is not saved: save it with peft",
            DiffCRWarning,
            stacklevel=4,
        )
    if weights is None:
        weights = attached.base.have_changed(transformer)
    if weights:
        host = {k: v.detach().cpu().contiguous() for k, v in host_parameters(transformer)}
        save_file(host, directory / WEIGHTS_FILE)
    description = {
        "format": _FORMAT,
        "config": config_to_json_dict(attached.config),
        "family": family_of(transformer).name,
        "transformer_class": type(transformer).__name__,
        "base_model": {"id": base.model_id, "config_hash": base.config_hash},
        **attached.describe(),
        "versions": library_versions(),
    }
    (directory / CONFIG_FILE).write_text(json.dumps(description, indent=2) + "\n")
    (directory / "README.md").write_text(model_card(description))


def load(
    pipe_or_transformer: Any, directory_or_hub_id: str | Path, revision: str | None = None
) -> Attached[Any, Any]:
    """Attach a saved checkpoint to the base model that it was trained on.

    Everything is read and checked before a weight of the model is changed.

    Args:
        pipe_or_transformer: The bare pipeline or transformer, or one with the same configuration
            attached.
        directory_or_hub_id: A directory that `save` wrote, or a Hub repository of such files.
        revision: Of the Hub repository.

    Raises:
        DiffCRError: There is no checkpoint, it is damaged, or it belongs to another base model.
    """
    transformer = find_transformer(pipe_or_transformer)
    family_of(transformer)
    checkpoint = read_checkpoint(resolve_checkpoint(directory_or_hub_id, revision))
    return _put(transformer, checkpoint, checkpoint.config)


def load_to_train(
    pipe_or_transformer: Any, directory_or_hub_id: str | Path, config: AttachedConfig
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


def _model_settings(config: AttachedConfig) -> dict[str, Any]:
    """What a configuration says of the model itself."""
    settings = config_to_json_dict(config)
    return {name: settings[name] for name in settings if name not in _READ_BY_TRAINING}


def _put(
    transformer: nn.Module, checkpoint: Checkpoint, config: AttachedConfig
) -> Attached[Any, Any]:
    attached = is_attached(transformer)
    base = get_attached(transformer).base if attached else HostWeights.of(transformer)
    _check_base(transformer, base, checkpoint)
    loaded = attach(transformer, config)
    try:
        _check_shapes(transformer, loaded, checkpoint)
        lora.replace_lora(transformer, checkpoint.adapter)
    except DiffCRError:
        if not attached:
            detach(transformer)
        raise
    loaded.load_state_dict(checkpoint.state)
    host = dict(host_parameters(transformer))
    with torch.no_grad():
        for name, tensor in checkpoint.weights.items():
            host[name].copy_(tensor)
    return loaded


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


def resolve_checkpoint(directory_or_hub_id: str | Path, revision: str | None = None) -> Path:
    """A local directory as it is, a Hub id through `huggingface_hub`'s cache.

    Raises:
        DiffCRError: It is neither.
    """
    path = Path(directory_or_hub_id)
    if path.is_dir():
        return path
    name = str(directory_or_hub_id)
    if isinstance(directory_or_hub_id, Path) or name.count("/") != 1 or name[0] in "./~":
        raise DiffCRError(f"{name} is not a directory: give a checkpoint directory or a Hub id")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "README.md"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise DiffCRError(
            f"{name} is not a directory and could not be had from the Hub: {first_line}"
        ) from error


def read_checkpoint(directory: Path) -> Checkpoint:
    """Read a checkpoint directory whole.

    Raises:
        DiffCRError: A file is missing or damaged, or was written by a later format.
    """
    description = read_json(directory / CONFIG_FILE)
    if description.get("format") != _FORMAT:
        raise DiffCRError(
            f"{directory / CONFIG_FILE} has format {description.get('format')!r}, this version of "
            f"diffcr reads {_FORMAT}: use the version of diffcr that wrote it"
        )
    try:
        config = config_from_json_dict(dict(description["config"]))
        base = description["base_model"]
        transformer_class = str(description["transformer_class"])
        state = read_tensors(directory / STATE_FILE)
        fingerprint = Fingerprint(base["id"], base["config_hash"], state.pop("base_weights"))
    except KeyError as error:
        raise DiffCRError(
            f"{directory} is not a complete checkpoint: {error} is missing"
        ) from error
    except DiffCRError:
        raise
    except (TypeError, ValueError) as error:
        raise DiffCRError(
            f"{directory / CONFIG_FILE} is damaged ({error}): copy it again"
        ) from error
    if isinstance(config, DenseConfig):
        raise DiffCRError(f"{directory / CONFIG_FILE} describes no compressed model: {config}")
    adapter = None
    if (directory / ADAPTER_DIRECTORY).is_dir():
        adapter = lora.read_lora(directory / ADAPTER_DIRECTORY)
    weights_file = directory / WEIGHTS_FILE
    weights = read_tensors(weights_file) if weights_file.exists() else {}
    return Checkpoint(directory, transformer_class, config, fingerprint, state, adapter, weights)
