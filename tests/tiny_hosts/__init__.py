"""A tiny random transformer of each published class, and inputs for it, by name."""

from __future__ import annotations

from tests.tiny_hosts import flux, pixart, qwen_image, sd3, wan, z_image
from tests.tiny_hosts.host import TinyHost

TINY_HOSTS: dict[str, TinyHost] = {
    host.name: host
    for family in (pixart, sd3, wan, flux, qwen_image, z_image)
    for host in family.HOSTS
}
