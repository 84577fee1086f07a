"""The judge: a small network that reads a scene's attributes off a picture.

It gives caption accuracy (does the picture show what the caption says?) and features for a Frechet
distance between sets of pictures. Neither is comparable with CLIP scores or Inception distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import gelu

from diffcr.core.images import image_tensor
from diffcr.errors import DiffCRError
from diffcr.files import read_json, read_tensors, write_json
from diffcr.scenes import SceneAttributes, scene_targets
from diffcr.scenes.attributes import BACKGROUND_CLASSES, OBJECT_CLASSES, PLACES

_CONFIG_FILE = "config.json"
_WEIGHTS_FILE = "judge.safetensors"


@dataclass(frozen=True)
class JudgeConfig:
    """Size of the network.

    Attributes:
        resolution: Of the pictures, a multiple of 16.
        channels: Of the four stages, each halving the resolution.
        features: Width of the features.
    """

    resolution: int = 96
    channels: tuple[int, int, int, int] = (32, 64, 96, 128)
    features: int = 128


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(8, channels)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.second(gelu(self.first(self.norm(x))))
        return result


class SceneJudge(nn.Module):
    """Picture [B, 3, H, W] in [-1, 1] -> logits of every attribute at every place."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        stages: list[nn.Module] = []
        before = 3
        for channels in config.channels:
            stages += [nn.Conv2d(before, channels, 4, stride=2, padding=1), _Residual(channels)]
            before = channels
        self.trunk = nn.Sequential(*stages, nn.Conv2d(before, 32, 1))
        positions = (config.resolution // 16) ** 2
        self.hidden = nn.Linear(32 * positions, 2 * config.features)
        self.bottleneck = nn.Linear(2 * config.features, config.features)
        self.presence = nn.Linear(config.features, len(PLACES))
        outputs = {name: len(PLACES) * len(words) for name, words in OBJECT_CLASSES.items()}
        outputs |= {name: len(words) for name, words in BACKGROUND_CLASSES.items()}
        self.heads = nn.ModuleDict(
            {name: nn.Linear(config.features, count) for name, count in outputs.items()}
        )

    def features(self, images: Tensor) -> Tensor:
        """[B, F] float32, what the heads read."""
        hidden = gelu(self.hidden(gelu(self.trunk(images)).flatten(1)))
        features: Tensor = self.bottleneck(hidden)
        return features

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits by attribute: [B, places] of presence, [B, places, classes], [B, classes]."""
        features = gelu(self.features(images))
        logits = {"presence": self.presence(features)}
        for name, head in self.heads.items():
            flat = head(features)
            places = name in OBJECT_CLASSES
            logits[name] = flat.unflatten(1, (len(PLACES), -1)) if places else flat
        return logits


def save_judge(judge: SceneJudge, directory: Path) -> None:
    """Write config.json and judge.safetensors."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in judge.state_dict().items()}
    save_file(state, directory / _WEIGHTS_FILE)
    write_json(directory / _CONFIG_FILE, asdict(judge.config))


def load_judge(directory: Path) -> SceneJudge:
    """Read what `save_judge` wrote, in eval mode.

    Raises:
        DiffCRError: There is no judge, or it is damaged.
    """
    values, weights = read_json(directory / _CONFIG_FILE), read_tensors(directory / _WEIGHTS_FILE)
    try:
        judge = SceneJudge(JudgeConfig(**{**values, "channels": tuple(values["channels"])}))
        judge.load_state_dict(weights)
    except (KeyError, TypeError, RuntimeError) as error:
        raise DiffCRError(f"no judge can be read from {directory}: {error}") from error
    return judge.eval()


@dataclass(frozen=True)
class AttributeAccuracy:
    """Share of pictures, or of their objects, that show what the caption says.

    Attributes:
        per_attribute: By attribute, in [0, 1]. An object's attributes are read at its caption's
            place; `place` is right when exactly the caption's places are occupied.
        mean: Of the attributes.
        exact_match: Share of pictures with every attribute right.
        count: Number of pictures.
    """

    per_attribute: dict[str, float]
    mean: float
    exact_match: float
    count: int


@torch.no_grad()
def judge_features(
    judge: SceneJudge, images: Sequence[Image.Image], batch_size: int = 128
) -> Tensor:
    """Features of pictures, [n, F] float32."""
    batches = range(0, len(images), batch_size)
    return torch.cat([judge.features(image_tensor(images[i : i + batch_size])) for i in batches])


@torch.no_grad()
def attribute_accuracy(
    judge: SceneJudge,
    images: Sequence[Image.Image],
    attributes: Sequence[SceneAttributes],
    batch_size: int = 128,
) -> AttributeAccuracy:
    """Caption accuracy: what the judge sees against what the captions say."""
    right: dict[str, list[bool]] = {name: [] for name in (*OBJECT_CLASSES, "place")}
    right |= {name: [] for name in BACKGROUND_CLASSES}
    exact = 0
    for start in range(0, len(images), batch_size):
        logits = judge(image_tensor(images[start : start + batch_size]))
        for row, scene in enumerate(attributes[start : start + batch_size]):
            verdict = _compare({name: values[row] for name, values in logits.items()}, scene)
            exact += all(all(values) for values in verdict.values())
            for name, values in verdict.items():
                right[name] += values
    shares = {name: sum(values) / len(values) for name, values in right.items()}
    return AttributeAccuracy(
        shares, sum(shares.values()) / len(shares), exact / len(images), len(images)
    )


def _compare(logits: dict[str, Tensor], scene: SceneAttributes) -> dict[str, list[bool]]:
    targets = scene_targets(scene)
    seen = tuple((logits["presence"] > 0).tolist())
    verdict = {"place": [seen == targets.presence]}
    for name in OBJECT_CLASSES:
        classes = logits[name].argmax(-1).tolist()
        pairs = zip(classes, getattr(targets, name), strict=True)
        verdict[name] = [got == wanted for got, wanted in pairs if wanted >= 0]
    for name in BACKGROUND_CLASSES:
        verdict[name] = [int(logits[name].argmax()) == getattr(targets, name)]
    return verdict
