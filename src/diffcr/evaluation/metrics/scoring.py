"""Chosen metrics of a directory of generated images, as one record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from diffcr.errors import SettingsError
from diffcr.evaluation.metrics.distances import clip_mmd, frechet_distance, kernel_distance
from diffcr.evaluation.metrics.images import (
    ImageDirectory,
    check_prompts,
    generated_images,
    reference_images,
)
from diffcr.evaluation.metrics.local_model import model_name
from diffcr.evaluation.metrics.networks import (
    CLIP_SCORE,
    CMMD,
    HPS,
    FeatureNetwork,
    extract_features,
    load_clip,
    load_dinov2,
    load_inception,
)
from diffcr.evaluation.metrics.options import DISTANCES, PROMPT_METRICS, ScoreOptions
from diffcr.evaluation.metrics.prompts import PromptMatcher, cosines, load_matcher
from diffcr.hosts.loading import own_device
from diffcr.records.record import Record, make_record


@dataclass(frozen=True)
class _Score:
    """A metric's section of the record, the raw samples behind it, and what to know of it."""

    metric: str
    section: dict[str, Any]
    samples: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


# The images, and, where a metric compares with it, the reference.
_Sets = dict[str, ImageDirectory]


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
    sets = {"images": generated_images(images)}
    if reference is not None:
        sets["reference"] = reference_images(reference)
    _check(sets, prompts, options)

    def extract(network: FeatureNetwork, network_name: str, name: str) -> Tensor:
        label = f"{network_name}, {name}" if progress else None
        return extract_features(network, sets[name], options.batch_size, label)

    networks, matchers = _load_networks(options), _load_matchers(options)
    scores: list[_Score] = []
    for name, network in networks.items():
        features = [extract(network, name, kind) for kind in ("images", "reference")]
        scores += _distances(name, network, features[0], features[1], options)
    for metric, matcher in matchers.items():
        found = extract(matcher.clip, metric, "images")
        scores.append(_match(metric, matcher, found, prompts, options))
    return _record(sets, options, scores)


def _check(sets: _Sets, prompts: Sequence[str], options: ScoreOptions) -> None:
    for name in options.metrics:
        if name in PROMPT_METRICS:
            if not prompts:
                raise SettingsError(
                    f"{name} needs the images' prompts: give {{prompts}}", "prompts"
                )
            check_prompts(sets["images"], prompts)
            continue
        if "reference" not in sets:
            raise SettingsError(f"{name} needs real pictures: give {{reference}}", "reference")
        least = options.kid_subset_size if name == "kid" else 2
        for images in sets.values():
            if len(images) < least:
                advice = ", or a smaller {kid_subset_size}" if name == "kid" else ""
                raise SettingsError(
                    f"{name} needs {least} pictures and {images.path} holds {len(images)}: "
                    f"give more{advice}",
                    "kid_subset_size",
                )


def _load_networks(options: ScoreOptions) -> dict[str, FeatureNetwork]:
    """By name, each once, whichever metrics share it."""
    device = own_device()
    loaders: dict[str, Callable[[], FeatureNetwork]] = {
        "inception": lambda: load_inception(options.inception or Path(), device),
        "dinov2": lambda: load_dinov2(options.dinov2, device),
        "cmmd": lambda: load_clip(options.cmmd, CMMD, device),
    }
    needed = {DISTANCES[name] for name in options.metrics if name in DISTANCES}
    return {name: load() for name, load in loaders.items() if name in needed}


def _load_matchers(options: ScoreOptions) -> dict[str, PromptMatcher]:
    named = {"clip": (options.clip, CLIP_SCORE), "hps": (options.hps, HPS)}
    return {
        metric: load_matcher(name, resizing, own_device())
        for metric, (name, resizing) in named.items()
        if metric in options.metrics
    }


def _distances(
    network_name: str,
    network: FeatureNetwork,
    images: Tensor,
    reference: Tensor,
    options: ScoreOptions,
) -> Iterator[_Score]:
    for metric, of in DISTANCES.items():
        if of != network_name or metric not in options.metrics:
            continue
        if metric == "kid":
            kid = kernel_distance(
                images, reference, options.kid_subsets, options.kid_subset_size, options.seed
            )
            section = {"value": kid.mean, "std": kid.std}
            section |= {"subsets": len(kid.values), "subset_size": kid.subset_size}
            yield _Score(metric, {**section, **network.description}, list(kid.values))
            continue
        distance = clip_mmd if metric == "cmmd" else frechet_distance
        value, fewest = distance(images, reference), min(len(images), len(reference))
        few = metric != "cmmd" and fewest <= images.shape[1]
        note = (
            f"{metric} has {fewest} images for {images.shape[1]} features: the covariances are "
            "singular and the value is far above that of many images."
        )
        yield _Score(metric, {"value": value, **network.description}, notes=[note] * few)


def _match(
    metric: str,
    matcher: PromptMatcher,
    images: Tensor,
    prompts: Sequence[str],
    options: ScoreOptions,
) -> _Score:
    embedded = matcher.embed(prompts, options.batch_size)
    values = cosines(images, embedded.values)
    mean = float(values.mean())
    section: dict[str, Any] = {"value": mean, "times_100": 100 * mean}
    if metric == "clip":
        # torchmetrics bounds the mean, not each picture's.
        section["times_100"] = max(100 * mean, 0.0)
    else:
        section["version"] = options.hps_version
    note = (
        f"{metric} reads only the beginning of {embedded.truncated} prompts, which are longer than "
        "the model's text."
    )
    notes = [note] if embedded.truncated else []
    return _Score(metric, {**section, **matcher.clip.description}, values.tolist(), notes)


def _record(sets: _Sets, options: ScoreOptions, scores: Sequence[_Score]) -> Record:
    described = {
        name: {
            "directory": images.path.resolve().name,
            "pictures": len(images),
            "sha256": images.sha256(),
        }
        for name, images in sets.items()
    }
    # Where a model lies on this machine identifies nothing elsewhere.
    named = {name: model_name(getattr(options, name)) for name in ("dinov2", "cmmd", "clip", "hps")}
    inception = None if options.inception is None else options.inception.name
    results = {
        "scores": {score.metric: score.section for score in scores},
        "sets": described,
        "notes": [note for score in scores for note in score.notes],
    }
    return make_record(
        "scores",
        {**asdict(options), **named, "inception": inception},
        results,
        seeds={"kid": options.seed},
        samples={score.metric: score.samples for score in scores if score.samples},
    )
