"""A record with made-up values of every section, and its pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffcr.evaluation.generate import save_images
from diffcr.records.record import Record, make_record
from diffcr.scenes import ScenesDataset


def synthetic_record(directory: Path, layers: int = 8, regions: int = 4) -> Record:
    """Values as a measurement would give them, pictures of scenes in place of generated ones."""
    random = np.random.default_rng(0)
    scenes = [ScenesDataset("test", size=6)[i] for i in range(6)]
    images = {"prompts": [scene.caption for scene in scenes]}
    for name in ("dense", "compressed"):
        paths = save_images([scene.image for scene in scenes], directory / "images", name)
        images[name] = [str(path.relative_to(directory)) for path in paths]
    learned = np.clip(random.normal(0.3, 0.2, (layers, regions)), 0, 0.9)
    steps = list(range(0, 300, 10))
    rise = np.minimum(np.asarray(steps) / 150, 1) * 0.3
    maps = random.random((4, layers, 12, 12))
    maps[:, :, 3:7, 3:7] += 0.3
    flops = {"linear": 1.2e8, "total": 1.5e8}
    latency = {"dense": 0.02, "compressed": 0.018, "ratio": 0.9}
    quality = {
        "caption_accuracy": 0.8,
        "caption_accuracy_per_attribute": {"shape": 0.7, "colour": 0.9},
        "caption_exact_match": 0.2,
        "judge_frechet_distance": None,
        "images": 6,
    }
    held_out = {"noise": [0.1] * regions, "total": [0.2] * regions, "mean": 0.1}
    results = {
        "compression": {
            "learned": learned.round(4).tolist(),
            "realised": (learned.round(1)).tolist(),
            "learned_mean": float(learned.mean()),
            "realised_mean": float(learned.round(1).mean()),
        },
        "flops": {"dense": flops, "compressed": flops, "per_region": [flops] * regions},
        "latency": {"denoiser": latency, "pipeline": latency},
        "quality": {"dense": quality, "compressed": quality},
        "held_out_loss": {"dense": held_out, "compressed": held_out},
        "trajectory": {
            "step": steps,
            "mean": rise.tolist(),
            "per_region": [(rise * (0.7 + 0.2 * i)).tolist() for i in range(regions)],
            "target": 0.3,
        },
        "router_maps": {
            "caption": scenes[0].caption,
            "timesteps": [950, 650, 350, 50],
            "scores": (maps / maps.max()).round(3).tolist(),
            "kept": (maps > 0.6).astype(int).tolist(),
            "mask": scenes[0].mask.astype(int).tolist(),
            "kept_on_objects": [0.9, 0.8, 0.7, 0.7],
            "kept_on_background": [0.6, 0.7, 0.7, 0.7],
        },
        "router_auc": {
            "mean": random.random((layers, regions)).round(4).tolist(),
            "standard_error": np.full((layers, regions), 0.01).tolist(),
            "attainable": 0.99,
            "from_place": 0.8,
            "scenes": 32,
            "left_out": 0,
        },
        "images": images,
        "notes": ["The training was short."],
    }
    samples = {"denoiser_dense": [0.02, 0.021], "denoiser_compressed": [0.018, 0.019]}
    return make_record("demo", {"steps": 300}, results, seeds={"training": 0}, samples=samples)
