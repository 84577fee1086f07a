"""Models of transformers from this machine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffcr.errors import DiffCRError


def load_model(model_class: Any, name: str, device: str) -> nn.Module:
    """A model in eval mode and float32.

    Args:
        model_class: Of transformers.
        name: A directory, or a Hub id that is in the local cache. Nothing is downloaded.
        device: Where to.

    Raises:
        DiffCRError: It is not on this machine, is of another kind, has no safetensors weights, or
            lacks some of them, which transformers would draw at random.
    """
    wanted, found = model_class.config_class.model_type, _model_type(model_class, name)
    if found != wanted:
        raise DiffCRError(f"{name} is a {found} model: give a {wanted} model")
    model, loading = _load(
        model_class, name, use_safetensors=True, dtype=torch.float32, output_loading_info=True
    )
    missing = sorted(loading["missing_keys"])
    if missing:
        raise DiffCRError(f"{name} is not complete, it lacks {missing[0]}: copy it again")
    loaded: nn.Module = model.eval().to(device)
    return loaded


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a CLIP model, from where `load_model` finds it."""
    from transformers import CLIPTokenizer

    return _load(CLIPTokenizer, name)


def model_name(name: str) -> str:
    """What a record calls a model: its Hub id, or its directory's name."""
    return Path(name).resolve().name if Path(name).is_dir() else name


def _model_type(model_class: Any, name: str) -> str:
    try:
        values, _ = model_class.config_class.get_config_dict(name, local_files_only=True)
    except (OSError, ValueError) as error:
        raise DiffCRError(_advice(name, str(error))) from error
    if "model_type" not in values:
        raise DiffCRError(_advice(name, "config.json names no model type"))
    return str(values["model_type"])


def _load(loaded_class: Any, name: str, **options: Any) -> Any:
    from safetensors import SafetensorError

    try:
        return loaded_class.from_pretrained(name, local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DiffCRError(_advice(name, str(error))) from error


def _advice(name: str, reason: str) -> str:
    if Path(name).is_dir():
        first_line = reason.strip().splitlines()[0]
        return (
            f"no model can be read from {name} ({first_line}): docs/metrics.md says how to get it"
        )
    if name.count("/") != 1 or name[0] in "./~":
        return f"{name} is not a directory: give a model's directory or Hub id"
    return (
        f"{name} is not on this machine with safetensors weights: run `hf download {name}`, or "
        "give its directory; docs/metrics.md says how to convert other weights"
    )
