"""The judge, trained on scenes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffcr.files import replacing_directory
from diffcr.pretraining.fitting import FitSettings, attribute_loss, fit, stack_targets
from diffcr.scenes import ScenesDataset
from diffcr.scenes.judge import JudgeConfig, SceneJudge, attribute_accuracy, save_judge


@dataclass(frozen=True, kw_only=True)
class JudgeSettings(FitSettings):
    """How the judge is trained.

    Attributes:
        images: Pictures of the training split that it learns from.
    """

    steps: int = 3000
    batch_size: int = 64
    images: int = 20_000


def train_judge(settings: JudgeSettings, directory: Path, test_images: int) -> dict[str, Any]:
    """Train the judge on scenes shifted by up to 2 pixels and with a little noise, and save it.

    Returns:
        What was done, for the record, with the judge's accuracy on pictures of the test split.
    """
    torch.manual_seed(settings.seed)
    judge = SceneJudge(JudgeConfig())
    scenes = list(ScenesDataset("train", size=settings.images))
    # Bytes: as floats they would take four times the memory.
    pixels = torch.stack(
        [torch.from_numpy(np.array(scene.image)).permute(2, 0, 1) for scene in scenes]
    )
    targets = stack_targets(scenes)

    def loss_of(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(scenes), (settings.batch_size,), generator=generator)
        images = _augment(pixels[rows].float() / 127.5 - 1, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = judge(images)
        logits = {name: values.float() for name, values in logits.items()}
        return attribute_loss(logits, {name: values[rows] for name, values in targets.items()})

    losses = fit("judge", judge.parameters(), settings, loss_of, weight_decay=0.05, warm_up=0.1)
    test = list(ScenesDataset("test", size=test_images))
    accuracy = attribute_accuracy(
        judge.eval(), [scene.image for scene in test], [scene.attributes for scene in test]
    )
    with replacing_directory(directory) as written:
        save_judge(judge, written)
    return {"settings": asdict(settings), "test_accuracy": asdict(accuracy), "losses": losses}


def _augment(images: Tensor, generator: torch.Generator) -> Tensor:
    shift = torch.randint(-2, 3, (2,), generator=generator).tolist()
    noise = torch.randn(images.shape, generator=generator)
    return torch.roll(images, shift, dims=(2, 3)) + 0.04 * noise
