"""save: what was trained, as a directory that appears complete or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from warnings import warn

from torch import nn

from diffcr.binding import lora
from diffcr.binding.acting import require_unfused
from diffcr.binding.calls import refuse_disk_offload
from diffcr.binding.model import get_attached
from diffcr.checkpoint.card import CARD_FILE, PICTURE_FILE, card_of_parts, model_card
from diffcr.checkpoint.ratio_picture import draw_ratios
from diffcr.checkpoint.stored import (
    ADAPTER_DIRECTORY,
    BASE_BESIDE,
    BASE_WEIGHTS,
    CONFIG_FILE,
    FORMAT,
    STATE_FILE,
    WEIGHTS_FILE,
    list_files,
    stored_parts,
)
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.files import replacing_directory, save_tensors, write_json, write_text
from diffcr.hardware import library_versions
from diffcr.hosts import family_of, find_transformers, is_sharded
from diffcr.hosts.weights import host_parameters, is_quantised
from diffcr.methods.base import Attached


def save(pipe_or_transformer: Any, directory: str | Path, weights: bool | None = None) -> Path:
    """Write what was trained: routers, ratios, the LoRA and, where they changed, host weights.

    The directory appears complete or not at all; an existing checkpoint there is replaced.

    Args:
        pipe_or_transformer: An attached pipeline or transformer.
        directory: Where to; for a pipeline of several transformers, a sub-directory each.
        weights: Whether to store the host's own weights; by default, when they differ from those
            that the model was attached with.

    Raises:
        DiffCRError: A transformer has nothing attached, the directory holds something else, an
            adapter is fused into the host's weights, or the weights to write are not in their
            place.
    """
    parts = find_transformers(pipe_or_transformer)
    for transformer in parts.values():
        _refuse_unready(transformer)
    target = Path(directory)
    require_replaceable(target)
    with replacing_directory(target) as written:
        if len(parts) == 1:
            (transformer,) = parts.values()
            _write(written, transformer, get_attached(transformer), weights)
            return target
        cards = {}
        for name, transformer in parts.items():
            (written / name).mkdir()
            attached = get_attached(transformer)
            cards[name] = _write(written / name, transformer, attached, weights)
        write_text(written / CARD_FILE, card_of_parts(cards))
    return target


def _refuse_unready(transformer: nn.Module) -> None:
    if any(m.replaces_weights and not m.enabled for m in get_attached(transformer).stack()):
        raise DiffCRError(
            "within diffcr.disabled the model holds its dense weights: save outside of it"
        )
    if is_sharded(transformer):
        raise DiffCRError(
            "the model is split over processes: gather its values with "
            "torch.distributed.checkpoint.state_dict.get_model_state_dict, and save a whole model "
            "that has loaded them"
        )
    require_unfused(transformer)
    refuse_disk_offload(transformer)


def require_replaceable(target: Path) -> None:
    """Raises DiffCRError where a checkpoint would take the place of something else."""
    if target.exists() and not target.is_dir():
        raise DiffCRError(f"{target} is a file: give an empty or a checkpoint directory")
    if target.exists() and any(target.iterdir()) and not _is_checkpoint(target):
        raise DiffCRError(f"{target} holds other files: give an empty or a checkpoint directory")


def _is_checkpoint(directory: Path) -> bool:
    parts = stored_parts(directory)
    others = {*directory.iterdir()} - {*parts.values(), directory / CARD_FILE}
    of_parts = bool(parts) and not others
    return of_parts or (directory / CONFIG_FILE).exists()


def _write(
    directory: Path, transformer: nn.Module, attached: Attached[Any, Any], weights: bool | None
) -> dict[str, Any]:
    """Returns what `diffcr_config.json` holds."""
    base = attached.base.fingerprint
    if base is None:
        raise DiffCRError("the model was attached without weights (meta device): nothing to save")
    state = {**attached.state_dict(), BASE_WEIGHTS: base.weights}
    if base.beside is not None:
        state[BASE_BESIDE] = base.beside
    save_tensors(directory / STATE_FILE, state)
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
        _refuse_quantised(transformer)
        save_tensors(directory / WEIGHTS_FILE, dict(host_parameters(transformer)))
    beneath = [method.config.to_json_dict() for method in attached.stack()][:0:-1]
    description = {
        "format": FORMAT,
        "config": attached.config.to_json_dict(),
        **({"beneath": beneath} if beneath else {}),
        "family": family_of(transformer).name,
        "transformer_class": type(transformer).__name__,
        "base_model": {"id": base.model_id, "config_hash": base.config_hash},
        **attached.describe(),
        "versions": library_versions(),
        "files": list_files(directory),
    }
    write_json(directory / CONFIG_FILE, description)
    write_text(directory / CARD_FILE, model_card(description))
    if "compression_ratios" in description:
        draw_ratios(description["compression_ratios"], directory / PICTURE_FILE)
    return description


def _refuse_quantised(transformer: nn.Module) -> None:
    for name, parameter in host_parameters(transformer):
        if is_quantised(parameter):
            raise DiffCRError(
                f"{name} is quantised, and the host's weights are to be saved: give weights=False, "
                "which leaves out what was trained of them"
            )
