"""Checkpoints as tests save and change them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from diffcr.binding.lora import add_lora
from diffcr.checkpoint.stored import list_files
from tests.hosts import trained_pixart


def with_lora() -> nn.Module:
    transformer = trained_pixart()
    add_lora(transformer, rank=2)
    torch.manual_seed(5)
    for name, parameter in transformer.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return transformer


def change_description(checkpoint: Path, **values: object) -> None:
    path = checkpoint / "diffcr_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def list_anew(checkpoint: Path) -> None:
    """What its files hold is what was meant: they are not refused for being changed."""
    change_description(checkpoint, files=list_files(checkpoint))
