"""`scenes`: captioned pictures that the embedded default is trained and judged on."""

from diffcr.scenes.attributes import ObjectAttributes, SceneAttributes, SceneTargets, scene_targets
from diffcr.scenes.captions import vocabulary
from diffcr.scenes.dataset import Scene, ScenesDataset

__all__ = [
    "ObjectAttributes",
    "Scene",
    "SceneAttributes",
    "SceneTargets",
    "ScenesDataset",
    "scene_targets",
    "vocabulary",
]
