"""Starting and ending the page."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

from diffcr.errors import DiffCRError
from diffcr.pretrained import GUIDANCE_SCALE, default_checkpoint_path, load_default_pipeline
from diffcr.studio.inpainting import InpaintingModel
from diffcr.studio.models import StudioModel

LOOPBACK = "127.0.0.1"
UPLOAD_LIMIT = "20mb"
WAITING_REQUESTS = 32
_GUIDANCE = 4.5


@dataclass(frozen=True)
class Studio:
    """A page that runs.

    Attributes:
        url: Where.
        page: Gradio's `Blocks`.
    """

    url: str
    page: Any

    def wait(self) -> None:
        """Until Ctrl-C, which ends the page."""
        self.page.block_thread()

    def close(self) -> None:
        """End the page and free its port."""
        self.page.close(verbose=False)


def launch(pipe: Any | None = None, **settings: Any) -> None:
    """Show a pipeline as a page in the browser, until Ctrl-C.

    Args:
        pipe: As in `start`.
        settings: As in `start`.

    Raises:
        DiffCRError: As in `start`.
    """
    studio = start(pipe, **settings)
    print(f"diffcr studio: {studio.url} (Ctrl-C ends it)", flush=True)
    studio.wait()


def start(
    pipe: Any | None = None,
    *,
    dense: Any | None = None,
    inpainting: Any | None = None,
    records: str | Path | None = None,
    host: str = LOOPBACK,
    port: int | None = None,
) -> Studio:
    """Start the page beside the caller's program.

    Several people may use one page: what they see and did is their own, and the models work on one
    request at a time, in the order of a queue.

    Args:
        pipe: A text-to-image pipeline, with a method attached or bare; then reuse is attached for
            the time of a picture. The embedded pipeline and its checkpoint by default.
        dense: The bare pipeline beside `pipe`, where `pipe` has a checkpoint that changed the
            model's own weights; else `pipe` with its method switched off is the dense model.
        inpainting: A `LazyInpaintPipeline`; the embedded one by default.
        records: Directory of records to compare, such as `benchmarks/results`.
        host: Address to listen at; by default this machine alone can reach it. There are neither
            accounts nor encryption.
        port: To listen at; the first free one from 7860 on by default.

    Raises:
        DiffCRError: Gradio is not installed, the model is not supported, `dense` is missing, the
            records cannot be read, or the port is taken.
    """
    if find_spec("gradio") is None:
        raise DiffCRError("gradio is not installed: pip install 'diffcr[studio]'")
    from diffcr.studio.frontier import read_frontier
    from diffcr.studio.page import build_page
    from diffcr.studio.style import CSS, make_theme

    lock = Lock()
    model = _open_model(lock) if pipe is None else StudioModel.of(pipe, dense, _GUIDANCE, lock)
    frontier = None if records is None else read_frontier(Path(records))
    page = build_page(model, _open_inpainting(inpainting, lock), frontier)
    page.queue(max_size=WAITING_REQUESTS, api_open=False)
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=UPLOAD_LIMIT,
            enable_monitoring=False,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
            theme=make_theme(),
            css=CSS,
        )
    except OSError as error:
        raise DiffCRError(f"the page cannot listen at {host}, port {port}: {error}") from error
    return Studio(url, page)


def _open_model(lock: Lock) -> StudioModel:
    """The embedded pipeline bare, and its trained checkpoint on a second transformer."""
    from diffcr.checkpoint.loading import load

    bare, trained = load_default_pipeline(), load_default_pipeline()
    load(trained, default_checkpoint_path())
    return StudioModel.of(trained, bare, GUIDANCE_SCALE, lock, knows_scenes=True)


def _open_inpainting(pipe: Any | None, lock: Lock) -> InpaintingModel:
    from diffcr.pretrained import load_default_inpainting

    if pipe is not None:
        return InpaintingModel(pipe, _GUIDANCE, lock)
    return InpaintingModel(load_default_inpainting(), GUIDANCE_SCALE, lock, knows_scenes=True)
