"""Every feature on every family's tiny host."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffcr.hosts import _FAMILIES
from tests.families import features
from tests.tiny_hosts import TINY_HOSTS

HOSTS = {n: host for n, host in TINY_HOSTS.items() if host.transformer_class in _FAMILIES}
each_host = pytest.mark.parametrize("name", HOSTS)


@each_host
def test_fresh_is_exact(name: str) -> None:
    features.fresh_is_exact(HOSTS[name])


@each_host
def test_half_is_masked_attention(name: str) -> None:
    features.half_is_masked_attention(HOSTS[name])


@each_host
def test_neighbours(name: str) -> None:
    features.neighbours_change_nothing(HOSTS[name])


@each_host
def test_regions_mix(name: str) -> None:
    features.regions_mix(HOSTS[name])


@each_host
def test_copy(name: str) -> None:
    features.a_copy_is_its_own(HOSTS[name])


@each_host
def test_saves(name: str, tmp_path: Path) -> None:
    features.saves_and_loads(HOSTS[name], tmp_path / "saved")


@each_host
def test_checkpointing(name: str) -> None:
    features.checkpoints_gradients(HOSTS[name])


@each_host
def test_compile(name: str) -> None:
    features.compiles(HOSTS[name])


@each_host
def test_merges(name: str) -> None:
    features.merges(HOSTS[name])


@each_host
def test_reuse(name: str) -> None:
    features.reuses_steps(HOSTS[name])
