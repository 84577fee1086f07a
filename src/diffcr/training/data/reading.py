"""Reading a data set of captioned pictures, by as many processes as are of use."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch.utils.data import DataLoader

from diffcr.errors import DiffCRError

# With fewer pictures, starting processes takes longer than they save.
_WORTH_PROCESSES = 500
# Each holds two batches of pictures.
_MOST_PROCESSES = 8


class CaptionedImage(Protocol):
    """A picture, RGB, and its caption."""

    @property
    def image(self) -> Image.Image: ...

    @property
    def caption(self) -> str: ...


class CaptionedImages(Protocol):
    """A data set; its `repr` identifies its contents."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> CaptionedImage: ...


@dataclass(frozen=True)
class _Reported:
    """Gives an error instead of raising it: the loader would wrap it in a worker's traceback."""

    dataset: CaptionedImages

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> CaptionedImage | DiffCRError:
        try:
            return self.dataset[index]
        except DiffCRError as error:
            return error


def read_batches(dataset: CaptionedImages, batch_size: int) -> Iterator[list[CaptionedImage]]:
    """All items in order; many of them are read by forked processes, where torch has threads.

    Raises:
        DiffCRError: As an item raises it.
    """
    workers = _workers() if len(dataset) >= _WORTH_PROCESSES else 0
    items: Any = _Reported(dataset)
    loader = DataLoader(
        items,
        batch_size,
        num_workers=workers,
        prefetch_factor=1 if workers else None,
        collate_fn=list,
        # The loader draws a seed: from torch's own state it would change what a caller draws next.
        generator=torch.Generator(),
    )
    for batch in loader:
        for item in batch:
            if isinstance(item, DiffCRError):
                raise item
        yield batch


def _workers() -> int:
    # Other start methods import the caller's script again; a daemon may have no children.
    forks = multiprocessing.get_start_method() == "fork"
    threads = torch.get_num_threads()
    if not forks or multiprocessing.current_process().daemon or threads == 1:
        return 0
    return min(threads, _MOST_PROCESSES)
