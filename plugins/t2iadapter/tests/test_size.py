"""Networks of official sizes are as large as the published files."""

from typing import Any

import pytest
from refiners_t2iadapter.adapter import T2iAdapter

from refiners_core.models import sd15, sdxl
from refiners_core.models.diffusion import LatentDiffusion


@pytest.fixture(scope="module")
def models() -> dict[str, LatentDiffusion]:
    return {"sd15": sd15.build(device="meta"), "sdxl": sdxl.build(device="meta")}


@pytest.mark.parametrize(
    ("base", "options", "keys", "megabytes"),
    [
        ("sd15", {}, 38, {4: 309.5}),
        ("sd15", {"picture_channels": 1}, 38, {4: 308.0}),
        ("sd15", {"is_light": True}, 80, {4: 74.8}),
        ("sdxl", {}, 38, {4: 316.1, 2: 158.1}),
    ],
)
def test_a_network_is_as_large_as_its_file(
    models: dict[str, LatentDiffusion],
    base: str,
    options: dict[str, Any],
    keys: int,
    megabytes: dict[int, float],
):
    with T2iAdapter(**options).on(models[base]) as adapter:
        tensors = adapter.published()
    numbers = sum(tensor.numel() for tensor in tensors.values())
    assert len(tensors) == keys
    for size, published in megabytes.items():
        assert numbers * size / 1e6 == pytest.approx(published, abs=0.1)
