"""One evaluation of a pipeline, attached or not, from generation to record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from diffcr.binding.model import (
    changes_dense,
    disabled,
    get_attached,
    get_compressor,
    is_attached,
    is_routed,
)
from diffcr.cost.sections import compression_section, flops_section
from diffcr.errors import DiffCRError
from diffcr.evaluation.generate import generate_images, save_images
from diffcr.evaluation.held_out import held_out_loss
from diffcr.evaluation.quality import measure_quality
from diffcr.evaluation.router_auc import router_auc
from diffcr.evaluation.router_maps import RouterMaps, router_maps, scene_router_maps
from diffcr.evaluation.timing.speed import denoiser_latency, pipeline_latency
from diffcr.hosts import find_transformer
from diffcr.records.record import Record, make_record
from diffcr.scenes import Scene
from diffcr.scenes.judge import SceneJudge
from diffcr.training.data.encoding import EncodedDataset

_CHANGED_WEIGHTS = (
    "The model's own weights were fine-tuned: 'dense' is those weights with all tokens computed, "
    "not the base model."
)


@dataclass(frozen=True)
class EvaluationOptions:
    """How much is measured.

    Attributes:
        seed: Of the first image, of the held-out noise.
        num_inference_steps: Denoising steps.
        guidance_scale: Of classifier-free guidance.
        height: Of the images in pixels, the pipeline's own by default.
        width: Of the images in pixels, the pipeline's own by default.
        batch_size: Images per call of the pipeline.
        saved_images: Images of each model that are written beside the record.
        held_out_samples: Per timestep region.
        latency_batch_size: Images per timed call.
        denoiser_repeats: Timed pairs of forwards, 0 for none.
        pipeline_repeats: Timed pairs of whole generations, 0 for none.
        map_timesteps: Noise levels of the router maps on a scene; as many denoising steps are
            mapped for a prompt of one's own.
        router_scenes: Scenes that the routers' scores are held against the objects of, 0 for none.
    """

    seed: int = 0
    num_inference_steps: int = 20
    guidance_scale: float = 4.5
    height: int | None = None
    width: int | None = None
    batch_size: int = 16
    saved_images: int = 8
    held_out_samples: int = 128
    latency_batch_size: int = 8
    denoiser_repeats: int = 15
    pipeline_repeats: int = 5
    map_timesteps: tuple[int, ...] = (950, 700, 450, 200, 50)
    router_scenes: int = 32


@dataclass(frozen=True)
class Subjects:
    """What is measured on; each part that is there adds its section to the record.

    Attributes:
        prompts: Images are generated from.
        scenes: What the prompts are captions of, in their order; empty for prompts of one's own.
        held_out: Encoded pictures that were not trained on.
        dense_images: What the bare pipeline generates from the prompts with the same options, where
            that is known already; else it is generated.
    """

    prompts: Sequence[str]
    scenes: Sequence[Scene] = ()
    held_out: EncodedDataset | None = None
    dense_images: Sequence[Image.Image] | None = None


def evaluate(
    pipe: Any,
    subjects: Subjects,
    output_directory: str | Path,
    options: EvaluationOptions | None = None,
    judge: SceneJudge | None = None,
    kind: str = "evaluation",
    bare: Any | None = None,
) -> Record:
    """Measure a pipeline: compression, FLOPs, latency, quality, held-out loss, router maps and, on
    scenes, how well routers tell objects from background.

    With DiffCR attached, everything is measured twice: "compressed" is the pipeline as it is,
    "dense" the same pipeline under `diffcr.disabled`, without adapters, or `bare`. Without DiffCR
    there is only "dense".

    Args:
        pipe: A text-to-image pipeline of diffusers.
        subjects: What to measure on.
        output_directory: Images go to `images/` in it; nothing else is written.
        options: How much.
        judge: Needed for the quality section, which also needs scenes.
        kind: Of the record.
        bare: The pipeline before it was fine-tuned, for the images and held-out loss of "dense":
            where host weights were fine-tuned, `diffcr.disabled` does not bring them back.

    Returns:
        The record; `write_report` writes it with its figures.

    Raises:
        DiffCRError: There are no prompts, or scenes that are not theirs.
    """
    options = options or EvaluationOptions()
    if subjects.scenes and len(subjects.scenes) != len(subjects.prompts):
        raise DiffCRError(
            f"there are {len(subjects.prompts)} prompts and {len(subjects.scenes)} scenes: "
            "give one scene per prompt, or none"
        )
    results: dict[str, Any] = {}
    samples: dict[str, list[float]] = {}
    compared = _Compared(pipe, bare)
    _measure_images(compared, subjects, Path(output_directory), options, judge, results)
    if subjects.held_out is not None:
        _measure_held_out(compared, subjects.held_out, options, results, samples)
    results["flops"] = flops_section(
        pipe, options.num_inference_steps, options.height, options.width
    )
    transformer = find_transformer(pipe)
    if is_routed(transformer):
        results["compression"] = compression_section(get_compressor(pipe))
        results["router_maps"] = _map_routers(pipe, subjects, options).to_json_dict()
        if chosen := subjects.scenes[: options.router_scenes]:
            results["router_auc"] = router_auc(pipe, chosen, seed=options.seed).to_json_dict()
    if is_attached(transformer):
        _measure_latency(pipe, subjects.prompts, options, results, samples)
        if bare is None and changes_dense(transformer):
            results["notes"] = [_CHANGED_WEIGHTS]
    configuration = {"options": asdict(options), **_describe(pipe)}
    return make_record(
        kind, configuration, results, seeds={"images": options.seed}, samples=samples
    )


def _map_routers(pipe: Any, subjects: Subjects, options: EvaluationOptions) -> RouterMaps:
    if subjects.scenes:
        return scene_router_maps(pipe, subjects.scenes[0], options.map_timesteps, options.seed)
    last, count = options.num_inference_steps - 1, len(options.map_timesteps)
    return router_maps(
        pipe,
        subjects.prompts[0],
        sorted({round(last * i / max(1, count - 1)) for i in range(count)}),
        options.seed,
        options.num_inference_steps,
        options.guidance_scale,
        options.height,
        options.width,
    )


def _describe(pipe: Any) -> dict[str, Any]:
    transformer = find_transformer(pipe)
    described: dict[str, Any] = {
        "pipeline": type(pipe).__name__,
        "model": Path(getattr(pipe.config, "_name_or_path", None) or "").name,
        "method": {"method": "dense"},
    }
    if is_attached(transformer):
        described["method"] = get_attached(transformer).config.to_json_dict()
    return described


@dataclass(frozen=True)
class _Compared:
    pipe: Any
    bare: Any | None

    @property
    def names(self) -> list[str]:
        attached = is_attached(find_transformer(self.pipe))
        return ["dense", "compressed"] if attached else ["dense"]

    @contextmanager
    def model(self, name: str) -> Iterator[Any]:
        """The pipeline to call for one of the names."""
        if name == "dense" and self.bare is not None:
            yield self.bare
        elif name == "dense" and is_attached(find_transformer(self.pipe)):
            with disabled(self.pipe):
                yield self.pipe
        else:
            yield self.pipe


def _measure_images(
    compared: _Compared,
    subjects: Subjects,
    directory: Path,
    options: EvaluationOptions,
    judge: SceneJudge | None,
    results: dict[str, Any],
) -> None:
    saved: dict[str, Any] = {"prompts": list(subjects.prompts[: options.saved_images])}
    quality: dict[str, Any] = {}
    for name in compared.names:
        images = subjects.dense_images if name == "dense" else None
        if images is None:
            with compared.model(name) as pipe:
                images = _generate(pipe, subjects.prompts, options, f"generating, {name}")
        paths = save_images(images[: options.saved_images], directory / "images", name)
        saved[name] = [path.relative_to(directory).as_posix() for path in paths]
        if judge is not None and subjects.scenes:
            quality[name] = measure_quality(judge, images, subjects.scenes).to_json_dict()
    results["images"] = saved
    if quality:
        results["quality"] = quality


def _generate(
    pipe: Any, prompts: Sequence[str], options: EvaluationOptions, progress: str
) -> list[Image.Image]:
    return generate_images(
        pipe,
        prompts,
        options.seed,
        options.num_inference_steps,
        options.guidance_scale,
        options.height,
        options.width,
        options.batch_size,
        progress,
    )


def _measure_held_out(
    compared: _Compared,
    data: EncodedDataset,
    options: EvaluationOptions,
    results: dict[str, Any],
    samples: dict[str, list[float]],
) -> None:
    routed = is_routed(find_transformer(compared.pipe))
    regions = get_compressor(compared.pipe).config.timestep_regions if routed else 4
    results["held_out_loss"] = {}
    for name in compared.names:
        with compared.model(name) as pipe:
            loss = held_out_loss(pipe, data, regions, options.held_out_samples, options.seed)
        results["held_out_loss"][name] = loss.to_json_dict()
        for region, values in enumerate(loss.samples):
            samples[f"held_out_loss/{name}/region-{region}"] = list(values)


def _measure_latency(
    pipe: Any,
    prompts: Sequence[str],
    options: EvaluationOptions,
    results: dict[str, Any],
    samples: dict[str, list[float]],
) -> None:
    size = (options.height, options.width)
    batch = options.latency_batch_size
    guided = 2 if options.guidance_scale > 1 else 1
    timed = {}
    if options.denoiser_repeats:
        name = f"denoiser, one step, {guided * batch} samples"
        timed[name] = denoiser_latency(pipe, guided * batch, *size, options.denoiser_repeats)
    if options.pipeline_repeats:
        chosen = [prompts[i % len(prompts)] for i in range(batch)]
        name = f"pipeline, {options.num_inference_steps} steps, {batch} images"
        timed[name] = pipeline_latency(
            pipe,
            chosen,
            options.num_inference_steps,
            options.guidance_scale,
            *size,
            options.pipeline_repeats,
        )
    for name, latency in timed.items():
        results.setdefault("latency", {})[name] = latency.to_json_dict()
        samples[f"latency/{name}/dense"] = list(latency.baseline.samples)
        samples[f"latency/{name}/compressed"] = list(latency.candidate.samples)
    if timed:
        results["latency"]["note"] = "A LoRA counts as merged on both sides."
