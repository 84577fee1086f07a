"""A checkpoint directory: JSON and safetensors, nothing that has to be unpickled.

diffcr_config.json     methods, configurations, base model, ratios for people, versions
diffcr.safetensors     routers, learned ratios, sampled weights of the base model
adapter/               the LoRA in peft's format, where there is one
transformer.safetensors  the host's weights, where training changed them
README.md              model card
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from diffcr.binding import lora
from diffcr.errors import DiffCRError
from diffcr.files import read_json, read_tensors
from diffcr.hosts.weights import Fingerprint
from diffcr.methods.config import DenseConfig, MethodConfig
from diffcr.methods.registry import config_from_json_dict

CONFIG_FILE = "diffcr_config.json"
STATE_FILE = "diffcr.safetensors"
WEIGHTS_FILE = "transformer.safetensors"
ADAPTER_DIRECTORY = "adapter"
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
    if description.get("format") != FORMAT:
        raise DiffCRError(
            f"{directory / CONFIG_FILE} has format {description.get('format')!r}, this version of "
            f"diffcr reads {FORMAT}: use the version of diffcr that wrote it"
        )
    try:
        config = config_from_json_dict(dict(description["config"]))
        beneath = tuple(config_from_json_dict(dict(v)) for v in description.get("beneath", ()))
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
    return Checkpoint(
        directory, transformer_class, config, beneath, fingerprint, state, adapter, weights
    )
