"""What an evaluation found, and its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from diffcr.evaluation.compression import Compression
from diffcr.evaluation.computed_share import ComputedShare
from diffcr.evaluation.generate import save_images
from diffcr.evaluation.held_out import HeldOutLoss
from diffcr.evaluation.options import EvaluationOptions
from diffcr.evaluation.quality import SceneQuality
from diffcr.evaluation.router_auc import RouterAUC
from diffcr.evaluation.router_maps import RouterMaps
from diffcr.evaluation.timing.latency import LatencyRatio
from diffcr.records.record import Record, make_record


@dataclass(frozen=True)
class ModelResults:
    """What was measured of one model.

    Attributes:
        images: In the order of the prompts.
        quality: None without scenes, or without a judge.
        held_out_loss: None without held-out pictures.
    """

    images: Sequence[Image.Image]
    quality: SceneQuality | None
    held_out_loss: HeldOutLoss | None


@dataclass(frozen=True)
class Evaluation:
    """What was measured of a pipeline.

    Attributes:
        options: How much was measured.
        pipeline: Class, model and method, for the record's configuration.
        prompts: What the images were generated from, in their order.
        models: By name: "compressed" has a method attached, "dense" is the bare model.
        flops: Operations, as `diffcr.cost.sections.flops_section` counts them.
        computed_share: What a step cache let the model compute; None without one.
        compression: Ratios; None without routers, as the next two.
        router_maps: None where no timesteps were to be mapped.
        router_auc: None without scenes.
        latency: Of "compressed" against "dense", by what was timed.
    """

    options: EvaluationOptions
    pipeline: Mapping[str, Any]
    prompts: Sequence[str]
    models: Mapping[str, ModelResults]
    flops: Mapping[str, Any]
    computed_share: ComputedShare | None
    compression: Compression | None
    router_maps: RouterMaps | None
    router_auc: RouterAUC | None
    latency: Mapping[str, LatencyRatio]

    def to_json_dict(self) -> dict[str, Any]:
        """The sections of a record, by name; those that were not measured are absent."""
        quality = {name: model.quality for name, model in self.models.items()}
        losses = {name: model.held_out_loss for name, model in self.models.items()}
        latency: dict[str, Any] = {name: v.to_json_dict() for name, v in self.latency.items()}
        if latency:
            latency["note"] = "A LoRA counts as merged on both sides."
        sections = {
            "quality": {name: v.to_json_dict() for name, v in quality.items() if v},
            "held_out_loss": {name: v.to_json_dict() for name, v in losses.items() if v},
            "flops": self.flops,
            "computed_share": self.computed_share and self.computed_share.to_json_dict(),
            "compression": self.compression and self.compression.to_json_dict(),
            "router_maps": self.router_maps and self.router_maps.to_json_dict(),
            "router_auc": self.router_auc and self.router_auc.to_json_dict(),
            "latency": latency,
        }
        return {name: section for name, section in sections.items() if section}

    def samples(self) -> dict[str, list[float]]:
        """Raw samples behind held-out losses and latencies, by name."""
        losses = {
            f"held_out_loss/{name}/region-{region}": list(values)
            for name, model in self.models.items()
            if model.held_out_loss
            for region, values in enumerate(model.held_out_loss.samples)
        }
        seconds = {
            f"latency/{name}/{side}": list(timing.samples)
            for name, latency in self.latency.items()
            for side, timing in (
                ("dense", latency.baseline),
                ("compressed", latency.candidate),
                ("dense again", latency.control),
            )
            if timing is not None
        }
        return losses | seconds

    def save(self, directory: str | Path, kind: str = "evaluation") -> Record:
        """Write the first images into a directory, below `images/`.

        Args:
            directory: Made where it is missing.
            kind: Of the record.

        Returns:
            The record of everything; `write_report` writes it with its figures.
        """
        folder, count = Path(directory), self.options.saved_images
        images: dict[str, Any] = {"prompts": list(self.prompts[:count])}
        for name, model in self.models.items():
            paths = save_images(model.images[:count], folder / "images", name)
            images[name] = [path.relative_to(folder).as_posix() for path in paths]
        return make_record(
            kind,
            {"options": asdict(self.options), **self.pipeline},
            {"images": images, **self.to_json_dict()},
            seeds={"images": self.options.seed},
            samples=self.samples(),
        )
