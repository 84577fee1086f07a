"""What is asked of the Hub, through `huggingface_hub`; whatever goes wrong there is one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    DryRunError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm.auto import tqdm

from diffcr.errors import DiffCRError, first_line

# Of httpx or httpx2, whichever this huggingface_hub asks with.
_HTTPError: type[Exception] = next(
    base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"
)
# Nothing that has to be unpickled.
PATTERNS = ("*.safetensors", "*.json", "*.md", "*.png")
_REFUSED, _FORBIDDEN = 401, 403


class _Unseen(tqdm):  # type: ignore[type-arg]
    """A progress bar that is not shown."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{**settings, "disable": True})


def fetch(repository: str, revision: str | None, needed: str) -> Path:
    """The files of a repository in the Hub's cache, fetched where they are not there yet: what is
    fetched is said on stderr. Where the Hub cannot be asked, a complete copy there is taken.

    Args:
        repository: As "user/name".
        revision: Branch, tag or commit; None for the main branch.
        needed: Name of a file without which, in the repository or a folder of it, nothing is
            fetched.

    Raises:
        DiffCRError: There is no such repository, revision or file, or the Hub cannot be reached.
    """
    patterns = list(PATTERNS)
    with _in_one_line(repository, revision):
        try:
            files = snapshot_download(
                repository,
                revision=revision,
                allow_patterns=patterns,
                tqdm_class=_Unseen,
                dry_run=True,
            )
        except DryRunError:
            # What the cache holds decides, below.
            files = []
        if files and needed not in {Path(file.filename).name for file in files}:
            raise DiffCRError(f"{_page(repository)} holds no {needed}: it is no checkpoint")
        if wanted := [file for file in files if file.will_download]:
            _announce("fetching", [file.file_size or 0 for file in wanted], "from", repository)
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))


def push_folder(
    folder: Path, repository: str, private: bool, message: str, deleted: list[str]
) -> str:
    """Upload a folder's files into a repository, which is made where there is none.

    Args:
        folder: Of nothing but what is to be uploaded.
        repository: As "user/name".
        private: Whether a repository that is made is for its owner alone.
        message: Of the commit.
        deleted: Patterns of files in the repository that go where the folder has none of them.

    Returns:
        The repository's page.

    Raises:
        DiffCRError: It is refused, or the Hub cannot be reached.
    """
    api = HfApi()
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    with _in_one_line(repository, None):
        api.create_repo(repository, private=private, exist_ok=True)
        _announce("pushing", sizes, "to", repository)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=list(PATTERNS),
            delete_patterns=deleted,
            commit_message=message,
        )
    return _page(repository)


def _page(repository: str) -> str:
    return f"{constants.ENDPOINT}/{repository}"


def _announce(doing: str, sizes: list[int], direction: str, repository: str) -> None:
    total = f"{sum(sizes) / 1e6:.1f} MB in {len(sizes)} files"
    tqdm.write(f"diffcr: {doing} {total} {direction} {_page(repository)}", file=sys.stderr)


@contextmanager
def _in_one_line(repository: str, revision: str | None) -> Iterator[None]:
    try:
        yield
    except DiffCRError:
        raise
    except (HFValidationError, OSError, _HTTPError) as error:
        raise DiffCRError(_reason(error, repository, revision)) from error


def _reason(error: Exception, repository: str, revision: str | None) -> str:
    """What went wrong, and what to do."""
    page = _page(repository)
    cause = error if isinstance(error, HfHubHTTPError) else error.__cause__
    if isinstance(error, HFValidationError):
        return f"{repository!r} is neither a directory nor a Hub id: write it as user/name"
    if isinstance(cause, GatedRepoError):
        return f"{page} asks for its terms to be accepted: open it, accept them, `hf auth login`"
    if isinstance(cause, RepositoryNotFoundError):
        return f"{page} does not exist, or is private: check its name, or `hf auth login`"
    if isinstance(cause, RevisionNotFoundError):
        return f"{page} has no revision {revision!r}: give a branch, a tag or a commit of it"
    if isinstance(cause, HfHubHTTPError) and cause.response.status_code in (_REFUSED, _FORBIDDEN):
        return f"{page} refused the request: `hf auth login` with a token that has the right to it"
    copy = "its copy in the cache is not complete"
    if not isinstance(error, IncompleteSnapshotError):
        copy = "the cache has no copy of it"
    if isinstance(error, OfflineModeIsEnabled) or isinstance(cause, OfflineModeIsEnabled):
        return f"{page} is not asked while HF_HUB_OFFLINE is set, and {copy}: unset it"
    reason = first_line(cause or error)
    if isinstance(error, LocalEntryNotFoundError):
        return f"{page} cannot be reached, and {copy} ({reason}): try again later"
    return f"{page} cannot be reached ({reason}): try again later"
