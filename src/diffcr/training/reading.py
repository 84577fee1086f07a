"""Reading a data set of captioned pictures, by as many processes as are of use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch.utils.data import DataLoader

from diffcr.errors import DiffCRError

# With fewer pictures, starting processes takes longer than they save.
_WORTH_PROCESSES = 500


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
    """All items in order. Many of them are read by as many processes as torch has threads, if that
    is more than one.

    Raises:
        DiffCRError: As an item raises it.
    """
    threads = torch.get_num_threads()
    workers = threads if threads > 1 and len(dataset) >= _WORTH_PROCESSES else 0
    items: Any = _Reported(dataset)
    for batch in DataLoader(items, batch_size, num_workers=workers, collate_fn=list):
        for item in batch:
            if isinstance(item, DiffCRError):
                raise item
        yield batch
