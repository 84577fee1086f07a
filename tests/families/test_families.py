"""Every feature on every family's tiny host works, or is refused with its reason."""

from __future__ import annotations

import re
from fnmatch import fnmatch

import pytest

from diffcr.errors import DiffCRError
from diffcr.hosts import _FAMILIES
from tests.families.features import FEATURES
from tests.families.matrix import PAGE, page_with_matrix
from tests.families.own_loop import trains_in_an_own_loop
from tests.families.refused import REFUSED, refusal
from tests.tiny_hosts import TINY_HOSTS

HOSTS = {n: host for n, host in TINY_HOSTS.items() if host.transformer_class in _FAMILIES}

# Of the same model, called in another way than training calls it.
OTHER_CALLS = (
    *("ragged", "per_token_timestep", "diffusion_forcing"),
    *("kontext", "edit", "reference", "square"),
)
CASES = [
    (name, feature)
    for name, host in HOSTS.items()
    for feature in FEATURES
    if feature != "training" or host.variant not in OTHER_CALLS
]


@pytest.mark.parametrize(("name", "feature"), CASES)
def test_feature(name: str, feature: str) -> None:
    refused = refusal(feature, name)
    if refused is None:
        FEATURES[feature](HOSTS[name])
        return
    with pytest.raises((DiffCRError, ValueError), match=re.escape(refused.message)):
        FEATURES[feature](HOSTS[name])


OWN_LOOPS = [
    name for name, feature in CASES if feature == "training" and refusal(feature, name) is not None
]


@pytest.mark.parametrize("name", OWN_LOOPS)
def test_what_the_command_does_not_train_trains_in_an_own_loop(name: str) -> None:
    trains_in_an_own_loop(HOSTS[name])


def test_what_is_not_trained_is_the_plain_model_of_its_class() -> None:
    for name, host in HOSTS.items():
        if host.variant in OTHER_CALLS:
            plain = HOSTS[name.partition("-")[0]]
            assert dict(host.make().config) == dict(plain.make().config), name


def test_every_refusal_is_of_a_host_and_a_feature() -> None:
    for refused in REFUSED:
        assert refused.feature in FEATURES
        assert any(fnmatch(name, refused.hosts) for name in HOSTS), refused


def test_the_docs_show_what_is_tested() -> None:
    assert PAGE.read_text() == page_with_matrix(), "run python -m tests.families.matrix"
