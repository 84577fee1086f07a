"""Which metrics there are, and what each needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffcr.errors import DiffCRError, SettingsError
from diffcr.validation import require_integer

# By the network whose features of images and of a reference are compared.
DISTANCES = {"fid": "inception", "kid": "inception", "fd-dinov2": "dinov2", "cmmd": "cmmd"}
PROMPT_METRICS = ("clip", "hps")
METRICS = (*DISTANCES, *PROMPT_METRICS)
HPS_VERSIONS = ("v2.0", "v2.1")


@dataclass(frozen=True)
class ScoreOptions:
    """What is measured, and with which weights.

    A model is a directory, or a Hub id in the local cache.

    Attributes:
        metrics: Names of `METRICS`, at least one.
        inception: TorchScript file, for fid and kid.
        dinov2: DINOv2 model, for fd-dinov2.
        cmmd: CLIP model of CMMD.
        clip: CLIP model of the CLIP score; it has no default because papers differ.
        hps: HPSv2 in the format of transformers' `CLIPModel`.
        hps_version: Which of `HPS_VERSIONS` it is.
        kid_subsets: Subsets that KID is estimated on, 1 or more.
        kid_subset_size: Images of each set in a subset, 2 or more.
        seed: Of the draws of the subsets.
        batch_size: Images per call of a network; changes results by rounding only.

    Raises:
        DiffCRError: A metric is not known or lacks its weights, or a number is below its least.
    """

    metrics: tuple[str, ...]
    inception: Path | None = None
    dinov2: str = "facebook/dinov2-large"
    cmmd: str = "openai/clip-vit-large-patch14-336"
    clip: str = ""
    hps: str = ""
    hps_version: str = ""
    kid_subsets: int = 100
    kid_subset_size: int = 1000
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        if not self.metrics:
            raise DiffCRError(f"there is no metric: choose from {', '.join(METRICS)}")
        for name in self.metrics:
            if name not in METRICS:
                raise DiffCRError(f"metric {name!r} is not known: choose from {', '.join(METRICS)}")
        for name, least in (("batch_size", 1), ("kid_subsets", 1), ("kid_subset_size", 2)):
            require_integer(name, getattr(self, name), least)
        self._check_weights()

    def _check_weights(self) -> None:
        if {"fid", "kid"} & set(self.metrics) and self.inception is None:
            raise SettingsError(
                "fid and kid need Inception: give {inception}, docs/metrics.md says which",
                "inception",
            )
        if "clip" in self.metrics and not self.clip:
            raise SettingsError(
                "clip needs a model: give {clip}, that of the scores to compare with", "clip"
            )
        if "hps" in self.metrics and not (self.hps and self.hps_version in HPS_VERSIONS):
            raise SettingsError(
                "hps needs converted weights and their version: give {hps} and {hps_version} "
                f"{' or '.join(HPS_VERSIONS)}, docs/metrics.md says how",
                "hps",
                "hps_version",
            )
