"""Signals end a run after its step, which is saved; it then goes on to the same end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from diffcr.training.interruption import noticing_signals
from tests.training.worker import equal, run, state, tiny_recipe


@pytest.fixture(autouse=True)
def _signals_of_a_terminal() -> Iterator[None]:
    """Tests that run in a shell's background inherit that SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _signal_in_step(monkeypatch: pytest.MonkeyPatch, number: int, *signals: int) -> None:
    plain, steps = torch.optim.AdamW.step, iter(range(1, 100))

    def step(self: torch.optim.AdamW, *arguments: Any) -> Any:
        if next(steps) == number:
            for sent in signals:
                os.kill(os.getpid(), sent)
        return plain(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)


@pytest.mark.parametrize(
    ("sent", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_run_that_is_stopped_saves_and_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sent: signal.Signals,
    raised: type[BaseException],
) -> None:
    torch.set_num_threads(1)
    run(tmp_path / "whole", tiny_recipe())
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    _signal_in_step(monkeypatch, 4, sent)
    with pytest.raises(raised) as caught:
        run(tmp_path / "halved", tiny_recipe())
    if raised is SystemExit:
        assert caught.value.code == 143  # type: ignore[attr-defined]
    assert "stopped and saved after step 4: run it again" in "".join(capsys.readouterr())
    assert (tmp_path / "halved" / "checkpoints" / "step-0000004").exists()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    monkeypatch.undo()
    run(tmp_path / "halved", tiny_recipe())
    assert equal(state(tmp_path / "whole", 12), state(tmp_path / "halved", 12))


def test_a_second_signal_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _signal_in_step(monkeypatch, 2, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tiny_recipe())
    assert not (tmp_path / "checkpoints").exists()


def test_a_signal_in_the_last_step_lets_the_run_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _signal_in_step(monkeypatch, 2, signal.SIGTERM)
    assert run(tmp_path, tiny_recipe(steps=2)).steps == 2
    assert (tmp_path / "final").exists()


def test_what_was_told_to_ignore_signals_goes_on_ignoring_them() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with noticing_signals() as request:
            os.kill(os.getpid(), signal.SIGINT)
            assert request.signal == 0
            os.kill(os.getpid(), signal.SIGTERM)
            assert request.signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_in_another_thread_has_no_signals(tmp_path: Path) -> None:
    thread = threading.Thread(target=run, args=(tmp_path, tiny_recipe(steps=2)))
    thread.start()
    thread.join()
    assert (tmp_path / "final").exists()
