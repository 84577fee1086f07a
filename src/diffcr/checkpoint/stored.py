"""A checkpoint directory: JSON and safetensors, nothing that has to be unpickled.

diffcr_config.json     methods, configurations, base model, ratios for people, versions; SHA-256 of
                       every other file that is loaded
diffcr.safetensors     routers, learned ratios, sampled weights of the base model
adapter/               the LoRA in peft's format, where there is one
transformer.safetensors  the host's weights, where training changed them
README.md              model card, with ratios.png, its table of ratios, where there is one

Of a pipeline of several transformers: a sub-directory of these for each, by its name there, and a
model card.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import warn

from torch import Tensor

from diffcr.binding import lora
from diffcr.core.finite import require_finite
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.files import read_json, read_tensors
from diffcr.hosts import PARTS
from diffcr.hosts.loading import is_hub_id
from diffcr.hosts.weights import SAMPLES, Fingerprint
from diffcr.methods.config import DenseConfig, MethodConfig
from diffcr.methods.registry import config_from_json_dict

CONFIG_FILE = "diffcr_config.json"
STATE_FILE = "diffcr.safetensors"
WEIGHTS_FILE = "transformer.safetensors"
ADAPTER_DIRECTORY = "adapter"
RESULT_OF_A_RUN = "final"
BASE_WEIGHTS = "base_weights"
BASE_BESIDE = "base_beside"
FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint directory, read and checked, not yet in a model.

    Attributes:
        directory: Where it was read.
        transformer_class: Name of the host's class.
        config: Of the method that was attached last.
        beneath: Of those beneath it, in the order of attaching.
        base: Identity of the model that they were attached to.
        state: The methods' tensors by their names below `transformer.diffcr`.
        adapter: The LoRA; None where there is none.
        weights: The host's weights by name where training changed them, else nothing.
    """

    directory: Path
    transformer_class: str
    config: MethodConfig
    beneath: tuple[MethodConfig, ...]
    base: Fingerprint
    state: dict[str, Tensor]
    adapter: lora.Adapter | None
    weights: dict[str, Tensor]


def resolve_checkpoint(directory_or_hub_id: str | Path, revision: str | None = None) -> Path:
    """A local directory as it is, that of a training run as its result, a Hub id through
    `huggingface_hub`'s cache.

    Raises:
        DiffCRError: It is neither, or cannot be had from the Hub.
    """
    path = Path(directory_or_hub_id)
    if path.is_dir():
        in_run = path / RESULT_OF_A_RUN
        of_run = not (path / CONFIG_FILE).exists() and (in_run / CONFIG_FILE).exists()
        return in_run if of_run else path
    name = str(directory_or_hub_id)
    if isinstance(directory_or_hub_id, Path) or not is_hub_id(name):
        raise DiffCRError(f"{name} is not a directory: give a checkpoint directory or a Hub id")
    from diffcr.checkpoint import hub

    return hub.fetch(name, revision, CONFIG_FILE)


def list_files(directory: Path) -> dict[str, str]:
    """SHA-256, in hexadecimal, of every file that a load reads beside `diffcr_config.json`, by its
    path in the directory."""
    files = [*directory.glob("*.safetensors"), *(directory / ADAPTER_DIRECTORY).glob("*")]
    names = sorted(
        file.relative_to(directory).as_posix()
        for file in files
        if file.suffix in (".safetensors", ".json")
    )
    return {name: _sha256(directory / name) for name in names}


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise DiffCRError(f"{file} cannot be read: {error.strerror}") from error


def stored_parts(directory: Path) -> dict[str, Path]:
    """Checkpoints of a pipeline's transformers in a directory, by the transformers' names."""
    places = {name: directory / name for name in PARTS}
    return {name: place for name, place in places.items() if (place / CONFIG_FILE).is_file()}


def read_checkpoint(directory: Path) -> Checkpoint:
    """Read a checkpoint directory whole.

    Raises:
        DiffCRError: A file is missing, damaged or not the one that was saved, a weight is not
            finite, or the checkpoint was written by a later format.
    """
    if not (directory / CONFIG_FILE).exists() and (parts := stored_parts(directory)):
        raise DiffCRError(
            f"{directory} holds checkpoints of a pipeline's {' and '.join(parts)}: give the "
            f"pipeline, or one of them, such as {next(iter(parts.values()))}"
        )
    file = directory / CONFIG_FILE
    description = read_json(file)
    if description.get("format") != FORMAT:
        raise DiffCRError(
            f"{file} has format {description.get('format')!r}, this version of "
            f"diffcr reads {FORMAT}: use the version of diffcr that wrote it"
        )
    _require_complete(directory, description)
    try:
        config = config_from_json_dict(dict(description["config"]))
        beneath = tuple(config_from_json_dict(dict(v)) for v in description.get("beneath", ()))
        base_id, base_hash = (str(description["base_model"][key]) for key in ("id", "config_hash"))
        transformer_class = str(description["transformer_class"])
    except KeyError as error:
        raise DiffCRError(f"{file} is not complete: {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise DiffCRError(f"{file} is damaged ({error}): copy it again") from error
    if isinstance(config, DenseConfig):
        raise DiffCRError(f"{file} describes no compressed model: {config}")
    state = read_tensors(directory / STATE_FILE)
    sampled = _take_sampled(directory, state, BASE_WEIGHTS)
    beside = _take_sampled(directory, state, BASE_BESIDE) if BASE_BESIDE in state else None
    fingerprint = Fingerprint(base_id, base_hash, sampled, beside)
    adapter = None
    if (directory / ADAPTER_DIRECTORY).is_dir():
        adapter = lora.read_lora(directory / ADAPTER_DIRECTORY)
    weights_file = directory / WEIGHTS_FILE
    weights = read_tensors(weights_file) if weights_file.exists() else {}
    for name, tensors in (
        (STATE_FILE, state),
        (ADAPTER_DIRECTORY, adapter.weights if adapter else {}),
        (WEIGHTS_FILE, weights),
    ):
        require_finite(str(directory / name), tensors)
    return Checkpoint(
        directory, transformer_class, config, beneath, fingerprint, state, adapter, weights
    )


def _require_complete(directory: Path, description: dict[str, Any]) -> None:
    """Raises DiffCRError where the files are not those that were saved together."""
    listed = description.get("files")
    if listed is None:
        warn(
            f"{directory} was saved without a list of its files, so none can be missed: load it "
            "and diffcr.save it to have one",
            DiffCRWarning,
            stacklevel=3,
        )
        return
    if not isinstance(listed, dict):
        raise DiffCRError(f"{directory / CONFIG_FILE} is damaged ('files'): copy it again")
    present = list_files(directory)
    for name in sorted({*listed, *present}):
        if name not in present:
            raise DiffCRError(f"{directory / name} is missing: copy the whole checkpoint again")
        if name not in listed:
            raise DiffCRError(f"{directory / name} is not of this checkpoint: take it out")
        if listed[name] != present[name]:
            raise DiffCRError(
                f"{directory / name} is damaged, or not the file that was saved with "
                f"{CONFIG_FILE}: copy the whole checkpoint again"
            )


def _take_sampled(directory: Path, state: dict[str, Tensor], name: str) -> Tensor:
    weights = state.pop(name, None)
    if weights is None or weights.shape != (SAMPLES,) or not weights.is_floating_point():
        raise DiffCRError(
            f"{directory / STATE_FILE} is damaged ({name} is not {SAMPLES} weights): copy it again"
        )
    return weights
