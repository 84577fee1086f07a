"""The ratios that a routed method learned, and their course in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from diffcr.methods.diffcr.compressor import Compressor


@dataclass(frozen=True)
class Compression:
    """Compression ratios in [0, 1].

    Attributes:
        learned: [layers][regions], clean to noisy.
        realised: The same, rounded to the bins of inference.
        learned_mean: Mean of `learned` over layers and regions.
        realised_mean: Mean of `realised` over layers and regions.
        target: That training steers the mean to.
    """

    learned: list[list[float]]
    realised: list[list[float]]
    learned_mean: float
    realised_mean: float
    target: float

    @classmethod
    def of(cls, compressor: Compressor) -> Compression:
        """Those of an attached model."""
        return cls(
            learned=compressor.learned_compression_ratios.tolist(),
            realised=[[b / 10 for b in row] for row in compressor.inference_bins()],
            learned_mean=compressor.mean_compression_ratio,
            realised_mean=compressor.realised_mean_compression_ratio,
            target=compressor.config.target_compression_ratio,
        )

    def to_json_dict(self) -> dict[str, Any]:
        """Values by name."""
        return asdict(self)


@dataclass(frozen=True)
class Trajectory:
    """Compression ratios over the steps of a training.

    Attributes:
        step: Steps that were logged, from 1, [n].
        mean: Learned ratio over all layers and regions at each of them, [n].
        per_region: Learned ratio over the layers, [regions][n].
        loss: Training loss at each of them, [n].
        target: That the mean is steered to.
    """

    step: list[int]
    mean: list[float]
    per_region: list[list[float]]
    loss: list[float]
    target: float

    @classmethod
    def of(cls, history: Sequence[Mapping[str, Any]], target: float) -> Trajectory:
        """From the lines of a run's history.jsonl."""
        tables = [line["table"] for line in history]
        return cls(
            step=[line["step"] for line in history],
            mean=[line["ratio"] for line in history],
            per_region=[
                [sum(layer[region] for layer in table) / len(table) for table in tables]
                for region in range(len(tables[0][0]))
            ],
            loss=[line["loss"] for line in history],
            target=target,
        )

    def to_json_dict(self) -> dict[str, Any]:
        """Values by name."""
        return asdict(self)
