"""Where captioned pictures come from, read a piece at a time."""

from __future__ import annotations

from pathlib import Path

from diffcr.scenes import ScenesDataset
from diffcr.training.data.sources.archives import TarSource, open_streamed
from diffcr.training.data.sources.folders import FolderSource, ScenesSource
from diffcr.training.data.sources.item import PictureSource

_DATASETS = "datasets:"


def open_source(name: str, resolution: int, unit_items: int) -> PictureSource:
    """The source that a caller names.

    Args:
        name: "scenes", a folder with `metadata.jsonl`, a tar file or a folder of them in the
            webdataset convention, or "datasets:NAME", "datasets:NAME:SPLIT" for what
            `datasets.load_dataset` opens, streamed.
        resolution: Of scenes, which are drawn in the size that is asked for.
        unit_items: Items of a unit, where the source has no units of its own.

    Raises:
        DiffCRError: There is none of that name, or a library that it needs is missing.
    """
    if name == "scenes":
        return ScenesSource(ScenesDataset(resolution=resolution), unit_items)
    if name.startswith(_DATASETS):
        return open_streamed(name.removeprefix(_DATASETS))
    path = Path(name)
    if path.is_file() and path.suffix == ".tar":
        return TarSource((path,))
    if path.is_dir() and not (path / "metadata.jsonl").exists():
        tars = tuple(sorted(path.glob("*.tar")))
        if tars:
            return TarSource(tars)
    return FolderSource(path, unit_items)
