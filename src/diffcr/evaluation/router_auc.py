"""Whether routers look at objects, as one number per layer and timestep region.

A measure of this project's own, of the scores of Sec. 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffcr.binding.model import get_compressor
from diffcr.core.regions import region_timesteps
from diffcr.errors import DiffCRError
from diffcr.evaluation.router_maps import RouterMaps, scene_router_maps
from diffcr.scenes import Scene

# What models with one region are reported in: noise matters to their routers' input, too.
_QUARTERS = 4


@dataclass(frozen=True)
class RouterAUC:
    """Area under the ROC curve of router scores against object masks.

    0.5 is chance, above it a router scores objects higher, below it the background. Objects lie in
    some places more often than in others, so that a router which knows places alone is not at 0.5
    but at `from_place`, or at 1 minus it.

    Attributes:
        per_scene: [M, L, R] float64 in [0, 1], by scene, layer and timestep region, clean to
            noisy; the mean over a region's timesteps.
        timesteps: The noise levels of each region, [R][T].
        attainable: What scores equal to the patches' covered share would have, on average. Below 1,
            since a patch at an object's edge shows both; 1 minus it is the least possible.
        from_place: What the other scenes' mean covered share of each patch as its score would
            have, on average; 0.5 with a single scene.
        left_out: Scenes with objects alone or background alone, which have no curve.
    """

    per_scene: NDArray[np.float64]
    timesteps: tuple[tuple[int, ...], ...]
    attainable: float
    from_place: float
    left_out: int

    @property
    def mean(self) -> NDArray[np.float64]:
        """Over scenes, [L, R]."""
        values: NDArray[np.float64] = self.per_scene.mean(axis=0)
        return values

    @property
    def standard_error(self) -> NDArray[np.float64] | None:
        """Of the mean over scenes, [L, R]; None with a single scene."""
        scenes = len(self.per_scene)
        if scenes == 1:
            return None
        errors: NDArray[np.float64] = self.per_scene.std(axis=0, ddof=1) / scenes**0.5
        return errors

    def to_json_dict(self) -> dict[str, Any]:
        """Values by name, to four decimals, without single scenes; `regions` are first and last
        timesteps."""
        errors = self.standard_error
        regions = [region_timesteps(r, len(self.timesteps)) for r in range(len(self.timesteps))]
        return {
            "mean": self.mean.round(4).tolist(),
            "standard_error": None if errors is None else errors.round(4).tolist(),
            "attainable": round(self.attainable, 4),
            "from_place": round(self.from_place, 4),
            "scenes": len(self.per_scene),
            "left_out": self.left_out,
            "regions": [[within.start, within.stop - 1] for within in regions],
            "timesteps": [list(levels) for levels in self.timesteps],
        }


def area_under_curve(scores: NDArray[Any], shares: NDArray[Any]) -> float:
    """Probability that a point of the objects is scored above one of the background.

    A point has the score of its token; equal scores count half. So a token counts as object by the
    share that objects cover of its patch and as background by the rest. With shares of 0 and 1
    alone this is the usual area under the ROC curve.

    Args:
        scores: [N], any real dtype. Only their order matters: logits give what their sigmoid does.
        shares: [N] in [0, 1], or bool.

    Raises:
        DiffCRError: The shapes differ, a score is not a number, a share is outside [0, 1], or
            there are objects alone or background alone.
    """
    if scores.ndim != 1 or scores.shape != shares.shape:
        raise DiffCRError(
            f"scores {list(scores.shape)} and shares {list(shares.shape)} do not fit: "
            "give one score and one share per token"
        )
    if np.isnan(scores).any():
        raise DiffCRError("a score is not a number: look at the model's weights")
    shares = shares.astype(float)
    if not ((shares >= 0) & (shares <= 1)).all():
        raise DiffCRError("a share is outside [0, 1]: give the covered part of each patch")
    _, places = np.unique(scores, return_inverse=True)
    objects = np.bincount(places, weights=shares)
    background = np.bincount(places, weights=1 - shares)
    pairs = objects.sum() * background.sum()
    if pairs == 0:
        raise DiffCRError("all tokens show the same: give shares of objects and of background")
    below = np.cumsum(background) - background / 2
    return float((objects * below).sum() / pairs)


def router_auc(
    pipe: Any, scenes: Sequence[Scene], timesteps_per_region: int = 4, seed: int = 0
) -> RouterAUC:
    """Measure on scenes' own pictures under noise, with the tokens that inference computes.

    Args:
        pipe: An attached text-to-image pipeline with an autoencoder.
        scenes: Their resolution is the pipeline's.
        timesteps_per_region: Noise levels, the middles of as many equal parts of each of the
            model's timestep regions, or of each quarter of the timesteps where it has one region.
        seed: Of the first scene's noise; scene i has a generator of its own, seeded `seed + i`.

    Raises:
        DiffCRError: DiffCR is not attached, `timesteps_per_region` is not positive, or no scene
            shows both objects and background.
    """
    if timesteps_per_region < 1:
        raise DiffCRError(f"timesteps_per_region is {timesteps_per_region}: give 1 or more")
    regions = get_compressor(pipe).config.timestep_regions
    timesteps = _spread_timesteps(_QUARTERS if regions == 1 else regions, timesteps_per_region)
    levels = [timestep for region in timesteps for timestep in region]
    maps = [
        scene_router_maps(pipe, scene, levels, seed + i)
        for i, scene in enumerate(scenes)
        if scene.mask.any() and not scene.mask.all()
    ]
    if not maps:
        raise DiffCRError(
            f"none of {len(scenes)} scenes shows both objects and background: give others"
        )
    shares = np.stack([single.object_share().flatten() for single in maps])
    others = [np.delete(shares, i, axis=0).sum(axis=0) for i in range(len(shares))]
    return RouterAUC(
        per_scene=np.stack([_areas(single, len(timesteps)) for single in maps]),
        timesteps=timesteps,
        attainable=float(np.mean([*map(area_under_curve, shares, shares)])),
        from_place=float(np.mean([*map(area_under_curve, others, shares)])),
        left_out=len(scenes) - len(maps),
    )


def _spread_timesteps(regions: int, count: int) -> tuple[tuple[int, ...], ...]:
    parts = [region_timesteps(region, regions) for region in range(regions)]
    return tuple(
        tuple(part.start + len(part) * (2 * i + 1) // (2 * count) for i in range(count))
        for part in parts
    )


def _areas(maps: RouterMaps, regions: int) -> NDArray[np.float64]:
    """Of one scene, [L, R]."""
    shares = maps.object_share().flatten()
    scores = maps.scores.reshape(regions, -1, maps.scores.shape[1], len(shares))
    areas = np.apply_along_axis(area_under_curve, -1, scores, shares)
    means: NDArray[np.float64] = areas.mean(axis=1).T
    return means
