"""A record's results as tables, section by section."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from diffcr.records.record import Record
from diffcr.report.tables import Table, region_headings
from diffcr.report.timing import bench_tables, time_tables


def make_tables(record: Record) -> list[Table]:
    """Tables of the sections that the record has."""
    sections = {
        "calibration": _calibration,
        "compression": _compression,
        "flops": _flops,
        "latency": _latency,
        "quality": _quality,
        "held_out_loss": _held_out,
        "router_maps": _router_maps,
        "router_auc": _router_auc,
        "scores": _scores,
    }
    results = record.results
    tables = [make(results[name]) for name, make in sections.items() if results.get(name)]
    return [*tables, *bench_tables(record), *time_tables(record)]


def _calibration(section: Mapping[str, Any]) -> Table:
    rows = [
        (
            "chosen" if trial == section["chosen"] else "",
            str(trial["dense_first_steps"]),
            f"{100 * trial['config']['compression_ratio']:.1f} %",
            f"{trial['config']['drift']:g}" if trial["config"]["granularity"] == "tokens" else "-",
            f"{100 * trial['mean_compression_ratio']:.1f} %",
            f"{100 * trial['error']:.2f} %",
            f"{trial['seconds'] / section['dense_seconds']:.2f}",
        )
        for trial in section["trials"]
    ]
    columns = ("", "dense first", "skipped after", "drift", "skipped, mean", "error", "time")
    return Table(
        f"Settings that were tried, {section['num_inference_steps']} steps",
        columns,
        tuple(rows),
        "error: of the final latents against the dense run of the same prompts and seeds. "
        "time: of one run each, as a share of the dense run's.",
    )


def _compression(section: Mapping[str, Any]) -> Table:
    realised, learned = section["realised"], section["learned"]
    rows = [
        (str(layer), *(f"{100 * c:.0f}  ({100 * d:.1f})" for c, d in zip(*pair, strict=True)))
        for layer, pair in enumerate(zip(realised, learned, strict=True))
    ]
    note = (
        f"Mean {100 * section['realised_mean']:.1f} % realised, "
        f"{100 * section['learned_mean']:.1f} % learned"
    )
    if "target" in section:
        note += f", target {100 * section['target']:.1f} %"
    return Table(
        "Compression: tokens that bypass a layer, %, realised (learned)",
        ("layer", *region_headings(len(realised[0]))),
        tuple(rows),
        note + ".",
    )


def _flops(section: Mapping[str, Any]) -> Table:
    counts = {"dense": section["dense"]}
    if "compressed" in section:
        counts["compressed"] = section["compressed"]
        headings = section.get("region_names") or region_headings(len(section["per_region"]))
        counts |= dict(zip(headings, section["per_region"], strict=True))
    dense = section["dense"]
    rows = [
        (
            name,
            _giga(count["linear"]),
            f"{100 * count['linear'] / dense['linear']:.1f} %",
            _giga(count["total"]),
            f"{100 * count['total'] / dense['total']:.1f} %",
        )
        for name, count in counts.items()
    ]
    return Table(
        "FLOPs of the denoiser, G, one image, one forward",
        ("", "linear", "of dense", "total", "of dense"),
        tuple(rows),
        "2 per multiply-add. linear: matrix products of linear layers; total: with the products "
        "inside attention. compressed: mean over the sampler's steps; routers are counted.",
    )


def _giga(count: float) -> str:
    return f"{count / 1e9:.4g}"


def _latency(section: Mapping[str, Any]) -> Table:
    rows = [
        (
            name,
            f"{1000 * values['dense']:.1f}",
            f"{1000 * values['compressed']:.1f}",
            f"{values['ratio']:.3f}",
            _interval(values.get("interval")),
            _interval(values.get("control_interval")),
        )
        for name, values in section.items()
        if isinstance(values, Mapping)
    ]
    return Table(
        "Latency, ms",
        ("", "dense", "compressed", "compressed / dense", "interval", "dense / itself"),
        tuple(rows),
        "Medians of interleaved pairs on this machine; compressed / dense is the median of the "
        "pairs' ratios, below 1 is faster, with its 95 % interval (of fewer than 6 pairs: smallest "
        "and largest). dense / itself is the same of the dense model timed twice: where both "
        "intervals overlap, the noise is larger than the difference. " + section.get("note", ""),
    )


def _interval(ends: Sequence[float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def _quality(section: Mapping[str, Any]) -> Table:
    names = list(section)
    first = section[names[0]]
    rows = [
        ("caption accuracy", *_percents(v["caption_accuracy"] for v in section.values())),
        ("all attributes right", *_percents(v["caption_exact_match"] for v in section.values())),
    ]
    for attribute in first["caption_accuracy_per_attribute"]:
        values = (v["caption_accuracy_per_attribute"][attribute] for v in section.values())
        rows.append((f"  {attribute.replace('_', ' ')}", *_percents(values)))
    if all(section[name]["judge_frechet_distance"] is not None for name in names):
        distances = (f"{section[name]['judge_frechet_distance']:.2f}" for name in names)
        rows.append(("judge's Frechet distance", *distances))
    return Table(
        "Quality, as the judge network sees it",
        ("", *names),
        tuple(rows),
        f"{first['images']} images of test captions. The judge is the project's own classifier; "
        "its figures are not comparable with CLIP scores or FID.",
    )


def _percents(shares: Iterable[float]) -> list[str]:
    return [f"{100 * share:.1f} %" for share in shares]


def _held_out(section: Mapping[str, Any]) -> Table:
    rows = [
        (name, *(f"{value:.4f}" for value in values["noise"]), f"{values['mean']:.4f}")
        for name, values in section.items()
    ]
    regions = len(next(iter(section.values()))["noise"])
    return Table(
        "Held-out diffusion loss (squared error of the predicted noise)",
        ("", *region_headings(regions), "mean"),
        tuple(rows),
        "Lower is better. The same pictures, noise and timesteps for both.",
    )


def _router_maps(section: Mapping[str, Any]) -> Table:
    rows = []
    for name, key in (("objects", "kept_on_objects"), ("background", "kept_on_background")):
        values = section.get(key) or []
        rows.append((name, *("-" if v is None else f"{100 * v:.0f} %" for v in values)))
    return Table(
        "Share of layers that compute a token, by what it shows",
        ("", *(f"t {timestep:.0f}" for timestep in section["timesteps"])),
        tuple(row for row in rows if len(row) > 1),
        f"For one test picture under noise: {section['caption']}.",
    )


def _router_auc(section: Mapping[str, Any]) -> Table:
    means = section["mean"]
    errors = section["standard_error"] or [[None] * len(row) for row in means]
    rows = [
        (str(layer), *map(_with_error, *pair))
        for layer, pair in enumerate(zip(means, errors, strict=True))
    ]
    return Table(
        "Routers as detectors of objects: area under the ROC curve",
        ("layer", *region_headings(len(means[0]))),
        tuple(rows),
        "0.5 is chance; above, a router scores objects higher, below, the background. Knowing only "
        f"where objects mostly lie would give {section['from_place']:.2f}, knowing them exactly "
        f"{section['attainable']:.2f}; turned round, 1 minus these. Mean over {section['scenes']} "
        "test pictures under noise, with its standard error. Where a layer computes every token "
        "its scores decide nothing.",
    )


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"


def _scores(section: Mapping[str, Any]) -> Table:
    rows = [
        (name, f"{values['value']:.5g}", values["model"], values["resizer"])
        for name, values in section.items()
    ]
    return Table(
        "Scores of the images",
        ("", "value", "model", "resizing"),
        tuple(rows),
        "clip and hps are mean cosines. Comparable with values of the same model, resizing, "
        "reference and number of images.",
    )
