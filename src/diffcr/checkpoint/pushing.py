"""push: a checkpoint's own files, and no other ones, to the Hub."""

from __future__ import annotations

import tempfile
from pathlib import Path

from diffcr.checkpoint import hub
from diffcr.checkpoint.card import CARD_FILE, PICTURE_FILE, for_hub
from diffcr.checkpoint.stored import (
    CONFIG_FILE,
    list_files,
    read_checkpoint,
    resolve_checkpoint,
    stored_parts,
)
from diffcr.errors import DiffCRError
from diffcr.hosts.loading import is_hub_id

# What a load would take for a part of this checkpoint, were it left of an earlier one.
_REPLACED = ["*.safetensors", f"*{CONFIG_FILE}", "*adapter_config.json", f"*{PICTURE_FILE}"]


def push(
    directory: str | Path, repository: str, license_id: str | None = None, private: bool = False
) -> str:
    """Upload a checkpoint, so that `diffcr.load(pipe, repository)` finds it.

    The directory is read and checked first, and stays as it is. What goes up are the files that
    `save` wrote: safetensors, JSON, the model card with the repository's name, and its picture.

    Args:
        directory: That `save` wrote, or of a training run.
        repository: As "user/name"; made where there is none.
        license_id: For the card's metadata, the Hub's name of a licence, such as "apache-2.0".
        private: Whether a repository that is made is for its owner alone.

    Returns:
        The repository's page.

    Raises:
        DiffCRError: The directory holds no whole checkpoint, or the Hub refuses it or cannot be
            reached.
    """
    if not is_hub_id(repository):
        raise DiffCRError(f"the repository is {repository!r}: write it as user/name")
    if not Path(directory).is_dir():
        raise DiffCRError(f"{directory} is not a directory: give one that diffcr.save wrote")
    source = resolve_checkpoint(directory)
    places = [source]
    if not (source / CONFIG_FILE).exists():
        places = list(stored_parts(source).values()) or places
    for place in places:
        read_checkpoint(place)
    with tempfile.TemporaryDirectory(prefix="diffcr-push-") as workplace:
        folder = Path(workplace)
        for place in places:
            _copy(place, folder / place.relative_to(source))
        for place in dict.fromkeys([source, *places]):
            if (card := place / CARD_FILE).is_file():
                text = for_hub(card, repository, license_id)
                target = folder / card.relative_to(source)
                target.write_text(text, encoding="utf-8")
        return hub.push_folder(folder, repository, private, "Upload a checkpoint", _REPLACED)


def _copy(place: Path, target: Path) -> None:
    """Put links to a checkpoint's files into a folder."""
    pictures = [PICTURE_FILE] if (place / PICTURE_FILE).is_file() else []
    for name in (CONFIG_FILE, *list_files(place), *pictures):
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to((place / name).resolve())
