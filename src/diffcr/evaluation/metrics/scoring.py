"""Chosen metrics of a directory of generated images, as one record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.evaluation.metrics.clip import (
    CLIP_SCORE,
    CMMD,
    HPS,
    PromptMatcher,
    cosines,
    load_clip,
    load_matcher,
)
from diffcr.evaluation.metrics.cmmd import clip_mmd
from diffcr.evaluation.metrics.dinov2 import load_dinov2
from diffcr.evaluation.metrics.features import FeatureNetwork, extract_features
from diffcr.evaluation.metrics.frechet import frechet_distance
from diffcr.evaluation.metrics.images import (
    ImageDirectory,
    check_prompts,
    generated_images,
    reference_images,
)
from diffcr.evaluation.metrics.inception import load_inception
from diffcr.evaluation.metrics.kid import kernel_distance
from diffcr.evaluation.metrics.local_model import model_name
from diffcr.evaluation.metrics.options import DISTANCES, PROMPT_METRICS, ScoreOptions
from diffcr.hosts.loading import own_device
from diffcr.records.record import Record, make_record


@dataclass(frozen=True)
class _Inputs:
    images: ImageDirectory
    reference: ImageDirectory | None
    prompts: Sequence[str]


@dataclass
class _Results:
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def score_images(
    images: Path,
    options: ScoreOptions,
    reference: Path | None = None,
    prompts: Sequence[str] = (),
    progress: bool = False,
) -> Record:
    """Measure a directory of generated images.

    Everything that is needed is looked for before anything is computed, and nothing is downloaded:
    the record holds every metric that was asked for and no other.

    Args:
        images: Directory of PNG files; in the order of their names they are the prompts' images.
        options: What is measured.
        reference: Directory of real pictures, for the metrics of `DISTANCES`.
        prompts: One per image, for those of `PROMPT_METRICS`.
        progress: Whether to show bars.

    Returns:
        A record of kind "scores". `results["scores"]` has a section per metric with its `value`,
        `results["sets"]` the number of pictures of either directory and a hash over them.

    Raises:
        DiffCRError: Something that a metric needs is missing, or there are too few pictures.
    """
    inputs = _Inputs(
        generated_images(images),
        None if reference is None else reference_images(reference),
        prompts,
    )
    _check(inputs, options)
    networks, matchers = _load_networks(options), _load_matchers(options)
    results = _Results()
    for name, network in networks.items():
        assert inputs.reference is not None, "checked above"
        sets = [
            extract_features(network, images, options.batch_size, label if progress else None)
            for label, images in (
                (f"{name}, images", inputs.images),
                (f"{name}, reference", inputs.reference),
            )
        ]
        _compare(name, network, sets[0], sets[1], options, results)
    for metric, matcher in matchers.items():
        label = f"{metric}, images" if progress else None
        features = extract_features(matcher.clip, inputs.images, options.batch_size, label)
        _match(metric, matcher, features, prompts, options, results)
    return _record(inputs, options, results)


def _check(inputs: _Inputs, options: ScoreOptions) -> None:
    for name in options.metrics:
        if name in PROMPT_METRICS:
            if not inputs.prompts:
                raise DiffCRError(f"{name} needs the images' prompts: give --prompts FILE")
            check_prompts(inputs.images, inputs.prompts)
            continue
        if inputs.reference is None:
            raise DiffCRError(f"{name} needs real pictures: give --reference DIR")
        least = options.kid_subset_size if name == "kid" else 2
        for images in (inputs.images, inputs.reference):
            if len(images) < least:
                advice = ", or a smaller --kid-subset-size" if name == "kid" else ""
                raise DiffCRError(
                    f"{name} needs {least} pictures and {images.path} holds {len(images)}: "
                    f"give more{advice}"
                )


def _load_networks(options: ScoreOptions) -> dict[str, FeatureNetwork]:
    """By name, each once, whichever metrics share it."""
    networks: dict[str, FeatureNetwork] = {}
    needed = {DISTANCES[name] for name in options.metrics if name in DISTANCES}
    if "inception" in needed and options.inception is not None:
        networks["inception"] = load_inception(options.inception, own_device())
    if "dinov2" in needed:
        networks["dinov2"] = load_dinov2(options.dinov2, own_device())
    if "cmmd" in needed:
        networks["cmmd"] = load_clip(options.cmmd, CMMD, own_device())
    return networks


def _load_matchers(options: ScoreOptions) -> dict[str, PromptMatcher]:
    named = {"clip": (options.clip, CLIP_SCORE), "hps": (options.hps, HPS)}
    return {
        metric: load_matcher(name, resizing, own_device())
        for metric, (name, resizing) in named.items()
        if metric in options.metrics
    }


def _compare(
    network_name: str,
    network: FeatureNetwork,
    images: Tensor,
    reference: Tensor,
    options: ScoreOptions,
    results: _Results,
) -> None:
    for metric in (name for name, of in DISTANCES.items() if of == network_name):
        if metric not in options.metrics:
            continue
        section: dict[str, Any]
        if metric == "kid":
            kid = kernel_distance(
                images, reference, options.kid_subsets, options.kid_subset_size, options.seed
            )
            section = {"value": kid.mean, "std": kid.std}
            section |= {"subsets": len(kid.values), "subset_size": kid.subset_size}
            results.samples["kid"] = list(kid.values)
        elif metric == "cmmd":
            section = {"value": clip_mmd(images, reference)}
        else:
            section = {"value": frechet_distance(images, reference)}
            _note_few(metric, images, reference, results)
        results.scores[metric] = section | dict(network.description)


def _note_few(metric: str, images: Tensor, reference: Tensor, results: _Results) -> None:
    fewest, features = min(len(images), len(reference)), images.shape[1]
    if fewest <= features:
        results.notes.append(
            f"{metric} has {fewest} images for {features} features: the covariances are singular "
            "and the value is far above that of many images."
        )


def _match(
    metric: str,
    matcher: PromptMatcher,
    images: Tensor,
    prompts: Sequence[str],
    options: ScoreOptions,
    results: _Results,
) -> None:
    embedded = matcher.embed(prompts, options.batch_size)
    values = cosines(images, embedded.values)
    mean = float(values.mean())
    section: dict[str, Any] = {"value": mean, "times_100": 100 * mean}
    if metric == "clip":
        # torchmetrics bounds the mean, not each picture's.
        section["times_100"] = max(100 * mean, 0.0)
    else:
        section["version"] = options.hps_version
    results.samples[metric] = values.tolist()
    results.scores[metric] = section | dict(matcher.clip.description)
    if embedded.truncated:
        results.notes.append(
            f"{metric} reads only the beginning of {embedded.truncated} prompts, which are longer "
            "than the model's text."
        )


def _record(inputs: _Inputs, options: ScoreOptions, results: _Results) -> Record:
    sets = {"images": inputs.images, "reference": inputs.reference}
    described = {
        name: {
            "directory": images.path.resolve().name,
            "pictures": len(images),
            "sha256": images.sha256(),
        }
        for name, images in sets.items()
        if images is not None
    }
    # Where a model lies on this machine identifies nothing elsewhere.
    named = {name: model_name(getattr(options, name)) for name in ("dinov2", "cmmd", "clip", "hps")}
    inception = None if options.inception is None else options.inception.name
    return make_record(
        "scores",
        {**asdict(options), **named, "inception": inception},
        {"scores": results.scores, "sets": described, "notes": results.notes},
        seeds={"kid": options.seed},
        samples=results.samples,
    )
