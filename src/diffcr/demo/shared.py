"""What every demo begins and ends with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from diffcr.errors import DiffCRError
from diffcr.pretrained import judge_path, load_default_pipeline
from diffcr.records.record import Record
from diffcr.report.report import PAGE, Report
from diffcr.scenes.judge import SceneJudge, load_judge


@dataclass(frozen=True)
class DemoResult:
    """What a demo did.

    Attributes:
        record: Everything that was measured.
        report: The directory it was written to.
        checkpoint: What it made, for `diffcr.load`.
        seconds: From the loaded pipeline to the report.
    """

    record: Record
    report: Report
    checkpoint: Path
    seconds: float


class Embedded(NamedTuple):
    """What a demo is shown on: the judge of its pictures, and the pipeline."""

    judge: SceneJudge
    pipe: Any


def check_demo(output_dir: str | Path) -> None:
    """Raises DiffCRError where a demo's report is there already, before anything is loaded."""
    if (Path(output_dir) / PAGE).exists():
        raise DiffCRError(f"{output_dir} holds another demo: delete it or give another directory")


def open_embedded(console: Console) -> Embedded:
    """The embedded models.

    Raises:
        DiffCRError: They are not in this installation.
    """
    embedded = Embedded(load_judge(judge_path()), load_default_pipeline())
    console.print(f"Loaded the embedded text-to-image pipeline on {embedded.pipe.device}.")
    return embedded
