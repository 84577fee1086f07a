"""Every feature on every family's tiny host works, or is refused with its reason."""

from __future__ import annotations

import re
from fnmatch import fnmatch

import pytest

from diffcr.errors import DiffCRError
from diffcr.hosts import _FAMILIES
from tests.families.features import FEATURES
from tests.families.matrix import PAGE, page_with_matrix
from tests.families.refused import REFUSED, refusal
from tests.tiny_hosts import TINY_HOSTS

HOSTS = {n: host for n, host in TINY_HOSTS.items() if host.transformer_class in _FAMILIES}
# Hosts that differ from the plain one of their class in their inputs alone: training makes its own.
_OF_INPUTS = (
    *("ragged", "reference", "kontext", "edit", "square"),
    *("per_token_timestep", "diffusion_forcing"),
)
_OTHER_INPUTS = [name for name, host in HOSTS.items() if host.variant in _OF_INPUTS]
_TESTED = [
    (name, feature)
    for name in HOSTS
    for feature in FEATURES
    if feature != "training" or name not in _OTHER_INPUTS
]


@pytest.mark.parametrize(("name", "feature"), _TESTED)
def test_feature(name: str, feature: str) -> None:
    refused = refusal(feature, name)
    if refused is None:
        FEATURES[feature](HOSTS[name])
        return
    with pytest.raises((DiffCRError, ValueError), match=re.escape(refused.message)):
        FEATURES[feature](HOSTS[name])


def test_what_is_not_trained_is_the_plain_model_of_its_class() -> None:
    for name in _OTHER_INPUTS:
        plain = HOSTS[name.partition("-")[0]]
        assert dict(HOSTS[name].make().config) == dict(plain.make().config), name


def test_every_refusal_is_of_a_host_and_a_feature() -> None:
    for refused in REFUSED:
        assert refused.feature in FEATURES
        assert any(fnmatch(name, refused.hosts) for name in HOSTS), refused


def test_the_docs_show_what_is_tested() -> None:
    assert PAGE.read_text() == page_with_matrix(), "run python -m tests.families.matrix"
