"""One evaluation of a pipeline, attached or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from diffcr.binding.model import (
    changes_dense,
    disabled,
    get_attached,
    get_compressor,
    is_attached,
    is_routed,
)
from diffcr.cost.sections import flops_section
from diffcr.errors import DiffCRError
from diffcr.evaluation.compression import Compression
from diffcr.evaluation.computed_share import ComputedShare, counting_parts
from diffcr.evaluation.generate import Generation, generate_images
from diffcr.evaluation.held_out import held_out_loss
from diffcr.evaluation.options import EvaluationOptions, Subjects
from diffcr.evaluation.picture_files import (
    PictureFiles,
    begin_pictures,
    generate_pictures,
    identify_generation,
)
from diffcr.evaluation.quality import measure_quality
from diffcr.evaluation.results import Evaluation, ModelResults
from diffcr.evaluation.router_auc import router_auc
from diffcr.evaluation.router_maps import RouterMaps, router_maps, scene_router_maps
from diffcr.evaluation.timing.latency import LatencyRatio
from diffcr.evaluation.timing.speed import denoiser_latency, pipeline_latency
from diffcr.hosts import find_transformer
from diffcr.scenes.judge import SceneJudge
from diffcr.validation import require_choice

_DENSE, _COMPRESSED = "dense", "compressed"
_REGIONS = 4


def evaluate(
    pipe: Any,
    subjects: Subjects,
    options: EvaluationOptions | None = None,
    judge: SceneJudge | None = None,
    bare: Any | None = None,
) -> Evaluation:
    """Measure a pipeline: compression, FLOPs, latency, quality, held-out loss, router maps and, on
    scenes, how well routers tell objects from background.

    With a method attached, images and losses are measured twice: "compressed" is the pipeline as it
    is, "dense" the same pipeline under `diffcr.disabled`, without adapters, or `bare`. Without one
    there is only "dense".

    Args:
        pipe: A text-to-image pipeline of diffusers.
        subjects: What to measure on.
        options: How much.
        judge: Needed for quality, which also needs scenes.
        bare: The pipeline before it was fine-tuned, for the images and held-out loss of "dense".

    Raises:
        DiffCRError: There are no prompts, an option is outside its range, or host weights were
            fine-tuned and "dense" is to be measured without `bare`.
    """
    options = options or EvaluationOptions()
    require_choice("image_precision", options.image_precision, ("no", "bf16"))
    transformer = find_transformer(pipe)
    attached, routed = is_attached(transformer), is_routed(transformer)
    cached = attached and any(method.hooks_blocks for method in get_attached(pipe).stack())
    computed = _count_computed(pipe, subjects.prompts, options) if cached else None
    both = attached and options.beside_dense
    if both and bare is None and changes_dense(transformer):
        raise DiffCRError(
            "the model's own weights were fine-tuned, so the dense one is not in it: give the base "
            "pipeline as bare, or beside_dense=False"
        )
    names = _measured(pipe, options)
    regions = options.held_out_regions
    if regions is None:
        regions = get_compressor(pipe).config.timestep_regions if routed else _REGIONS
    models = {}
    for name in names:
        with _model(name, pipe, bare) as model:
            models[name] = _measure(model, name, subjects, options, judge, regions)
    scenes = subjects.scenes[: options.router_scenes]
    return Evaluation(
        options=options,
        pipeline=_describe(pipe),
        prompts=subjects.prompts,
        models=models,
        flops=_count_flops(pipe, options, computed),
        computed_share=computed,
        compression=Compression.of(get_compressor(pipe)) if routed else None,
        router_maps=_map_routers(pipe, subjects, options) if routed else None,
        router_auc=router_auc(pipe, scenes, seed=options.seed) if routed and scenes else None,
        latency=_measure_latency(pipe, subjects.prompts, options) if attached else {},
    )


def generate_all(
    pipe: Any,
    subjects: Subjects,
    options: EvaluationOptions,
    directory: Path,
    processes: Any,
    bare: Any | None = None,
    anew: bool = False,
) -> Subjects:
    """The subjects with the images that `evaluate` measures, which are written when they are made.

    Args:
        pipe: As in `evaluate`.
        subjects: As in `evaluate`.
        options: As in `evaluate`.
        directory: Of the images, in `dense/` and `compressed/`.
        processes: accelerate's `PartialState` of those that share the images out.
        bare: As in `evaluate`.
        anew: Delete images that are there instead of going on with them.

    Raises:
        DiffCRError: There are images of something else.
    """
    generation = Generation(batch_size=options.batch_size, **options.generation)
    made: dict[str, PictureFiles] = {}
    for name in _measured(pipe, options):
        files = made[name] = PictureFiles(directory / name, len(subjects.prompts))
        with _model(name, pipe, bare) as model, _precision(model, options):
            if processes.is_main_process:
                identity = identify_generation(
                    model, subjects.prompts, generation, precision=options.image_precision
                )
                begin_pictures(files, identity, anew)
            processes.wait_for_everyone()
            generate_pictures(
                model,
                subjects.prompts,
                files,
                generation,
                processes.process_index,
                processes.num_processes,
                f"generating, {name}",
            )
    processes.wait_for_everyone()
    return replace(subjects, dense_images=made.get(_DENSE), compressed_images=made.get(_COMPRESSED))


def _measured(pipe: Any, options: EvaluationOptions) -> list[str]:
    """Names of the models that are measured."""
    attached = is_attached(find_transformer(pipe))
    return [_DENSE] * (options.beside_dense or not attached) + [_COMPRESSED] * attached


@contextmanager
def _model(name: str, pipe: Any, bare: Any | None) -> Iterator[Any]:
    """The pipeline to call for one of the names."""
    if name == _DENSE and bare is not None:
        yield bare
    elif name == _DENSE and is_attached(find_transformer(pipe)):
        with disabled(pipe):
            yield pipe
    else:
        yield pipe


def _measure(
    pipe: Any,
    name: str,
    subjects: Subjects,
    options: EvaluationOptions,
    judge: SceneJudge | None,
    regions: int,
) -> ModelResults:
    images = subjects.dense_images if name == _DENSE else subjects.compressed_images
    if images is None:
        images = _generate(pipe, subjects.prompts, options, f"generating, {name}")
    quality = loss = None
    if judge is not None and subjects.scenes:
        quality = measure_quality(judge, images, subjects.scenes)
    if subjects.held_out is not None and not (name != _DENSE and _keeps_steps(pipe)):
        samples = options.held_out_samples
        loss = held_out_loss(pipe, subjects.held_out, regions, samples, options.seed)
    return ModelResults(images, quality, loss)


def _generate(
    pipe: Any, prompts: Sequence[str], options: EvaluationOptions, progress: str
) -> list[Image.Image]:
    with _precision(pipe, options):
        return generate_images(
            pipe, prompts, batch_size=options.batch_size, progress=progress, **options.generation
        )


def _precision(pipe: Any, options: EvaluationOptions) -> AbstractContextManager[Any]:
    """Within the context images are made in the precision that the options name."""
    device = next(find_transformer(pipe).parameters()).device.type
    lower = options.image_precision == "bf16"
    return torch.autocast(device, dtype=torch.bfloat16) if lower else nullcontext()


def _count_flops(
    pipe: Any, options: EvaluationOptions, computed: ComputedShare | None
) -> dict[str, Any]:
    shares = computed.per_layer if computed is not None and computed.skips_layers else None
    section = flops_section(pipe, options.num_inference_steps, computed=shares, **options.size)
    if computed is not None and shares is None:
        # Of parts of blocks that are skipped there is the share alone.
        del section["compressed"]
    return section


def _count_computed(pipe: Any, prompts: Sequence[str], options: EvaluationOptions) -> ComputedShare:
    """Of the images of the first prompts, as many as a timed call has."""
    with counting_parts(find_transformer(pipe)) as counted, _precision(pipe, options):
        generate_images(
            pipe,
            prompts[: options.latency_batch_size],
            batch_size=options.latency_batch_size,
            **options.generation,
        )
    return counted.share()


def _map_routers(pipe: Any, subjects: Subjects, options: EvaluationOptions) -> RouterMaps | None:
    if not options.map_timesteps:
        return None
    if subjects.scenes:
        return scene_router_maps(pipe, subjects.scenes[0], options.map_timesteps, options.seed)
    last, count = options.num_inference_steps - 1, len(options.map_timesteps)
    steps = sorted({round(last * i / max(1, count - 1)) for i in range(count)})
    return router_maps(pipe, subjects.prompts[0], steps, **options.generation)


def _describe(pipe: Any) -> dict[str, Any]:
    described: dict[str, Any] = {
        "pipeline": type(pipe).__name__,
        "model": Path(getattr(pipe.config, "_name_or_path", None) or "").name,
        "method": {"method": "dense"},
    }
    if is_attached(find_transformer(pipe)):
        top, *beneath = (method.config.to_json_dict() for method in get_attached(pipe).stack())
        described["method"] = top
        if beneath:
            described["beneath"] = beneath
    return described


def _keeps_steps(pipe: Any) -> bool:
    transformer = find_transformer(pipe)
    return is_attached(transformer) and get_attached(transformer).depends_on_steps


def _measure_latency(
    pipe: Any, prompts: Sequence[str], options: EvaluationOptions
) -> dict[str, LatencyRatio]:
    batch, timed = options.latency_batch_size, {}
    samples = batch * (2 if options.guidance_scale > 1 else 1)
    if (repeats := options.denoiser_repeats) and not _keeps_steps(pipe):
        timed[f"denoiser, one step, {samples} samples"] = denoiser_latency(
            pipe, samples, repeats=repeats, **options.size
        )
    if repeats := options.pipeline_repeats:
        chosen = [prompts[i % len(prompts)] for i in range(batch)]
        timed[f"pipeline, {options.num_inference_steps} steps, {batch} images"] = pipeline_latency(
            pipe, chosen, repeats, **options.generation
        )
    return timed
