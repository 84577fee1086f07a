"""Training of the judge on scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcr.pretraining.attribute_loss import attribute_loss, stack_targets
from diffcr.scenes import ScenesDataset
from diffcr.scenes.judge import JudgeConfig, SceneJudge


@dataclass(frozen=True)
class JudgeSettings:
    """How the judge is trained.

    Attributes:
        steps: Optimiser steps.
        batch_size: Pictures per step.
        images: Of the training split.
        learning_rate: Peak of AdamW's schedule.
        seed: Of weights and draws.
    """

    steps: int = 3000
    batch_size: int = 64
    images: int = 20_000
    learning_rate: float = 2e-3
    seed: int = 0


def train_judge(settings: JudgeSettings, report: Callable[[int, float], None]) -> SceneJudge:
    """Train on scenes shifted by up to 2 pixels and with a little noise."""
    torch.manual_seed(settings.seed)
    judge = SceneJudge(JudgeConfig())
    data = ScenesDataset("train", size=settings.images)
    scenes = list(data)
    pixels = torch.stack([_pixels(scene.image) for scene in scenes])
    targets = stack_targets(scenes)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=settings.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.steps, pct_start=0.1
    )
    generator = torch.Generator().manual_seed(settings.seed)
    for step in range(settings.steps):
        rows = torch.randint(len(scenes), (settings.batch_size,), generator=generator)
        images = _augment(pixels[rows].float() / 127.5 - 1, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = judge(images)
        logits = {name: values.float() for name, values in logits.items()}
        loss = attribute_loss(logits, {name: values[rows] for name, values in targets.items()})
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        report(step + 1, float(loss.detach()))
    return judge.eval()


def _pixels(image: object) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _augment(images: Tensor, generator: torch.Generator) -> Tensor:
    shift = torch.randint(-2, 3, (2,), generator=generator).tolist()
    noise = torch.randn(images.shape, generator=generator)
    return torch.roll(images, shift, dims=(2, 3)) + 0.04 * noise
