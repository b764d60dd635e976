"""Every adapter of the manifest, built in released sizes, is as large as its released file."""

import tomllib
from collections.abc import Mapping
from importlib import import_module
from importlib.resources import files
from typing import Any

import pytest
from refiners_ipadapter.image_prompt import ImagePrompt

from refiners_core.models import sd15, sdxl
from refiners_core.models.clip import ClipImageConfig
from refiners_core.models.diffusion import LatentDiffusion

MANIFEST = tomllib.loads((files("refiners_ipadapter") / "adapter.toml").read_text())["adapter"]
MEGABYTES = {
    ("ip-adapter-composition", "sd15"): 98.2,
    ("ip-adapter-composition", "sdxl"): 847.5,
    ("ip-adapter-faceid-plus", "sd15"): 156.6,
    ("ip-adapter-faceid", "sdxl"): 1071,
}
"""The sizes of files whose exact size no public source states, in 10^6 bytes."""
CASES = [
    pytest.param(name, variant, id=f"{name}-{variant['base']}")
    for name, spec in MANIFEST.items()
    for variant in spec["variant"]
    if variant["base"] in ("sd15", "sdxl") and name != "ip-adapter-dinov2"
]


@pytest.fixture(scope="module")
def models() -> Mapping[str, LatentDiffusion]:
    return {"sd15": sd15.build(device="meta"), "sdxl": sdxl.build(device="meta")}


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_a_network_of_released_sizes_is_as_large_as_its_file(
    name: str, variant: Any, models: Mapping[str, LatentDiffusion]
):
    adapter = built(MANIFEST[name]["factory"], variant).inject(models[variant["base"]])
    ours = adapter.published()
    adapter.eject()
    expected = 2 * sum(tensor.numel() for tensor in ours.values())  # half precision
    if name.endswith("unnorm"):  # of which the resampler is published in single precision
        expected += 2 * sum(ours[key].numel() for key in ours if key.startswith("image_proj."))
    roles = variant["weights"]
    label = roles if isinstance(roles, str) else roles["weights"]
    size = MANIFEST[name]["weights"][label].get("size")
    if size is None:
        size = MEGABYTES[name, variant["base"]] * 1e6
        assert abs(size - expected) / size < 2e-3
    else:
        assert 0 < size - expected < 450 * len(ours) + 2000  # names, shapes, alignment
    numbers = {int(key.split(".")[1]) for key in ours if key.endswith(".to_k_ip.weight")}
    assert numbers == set(range(1, {"sd15": 32, "sdxl": 140}[variant["base"]], 2))


def built(factory: str, variant: Any) -> ImagePrompt:
    """Returns an adapter without weights; its encoder, whose sizes do not matter, is small."""
    module, _, name = factory.partition(":")
    make, settings = getattr(import_module(module), name), variant.get("settings", {})
    sizes = {key.replace("-", "_"): size for key, size in settings.get("encoder", {}).items()}
    options: dict[str, Any] = {}
    if hasattr(make, "encoder_kind") or name == "FaceIdPlus":
        options["encoder"] = ClipImageConfig(**{**sizes, "layers": 2})
    if "shortcut" in settings:
        options["shortcut"] = settings["shortcut"]
    return make(**options)


def test_the_middle_comes_last(models: Mapping[str, LatentDiffusion]):
    adapter = built("refiners_ipadapter.adapter:IpAdapter", {}).inject(models["sd15"])
    ours = adapter.published()
    adapter.eject()
    assert ours["ip_adapter.31.to_k_ip.weight"].shape == (1280, 768)
    assert ours["ip_adapter.13.to_k_ip.weight"].shape == (1280, 768)
    assert ours["ip_adapter.1.to_k_ip.weight"].shape == (320, 768)
