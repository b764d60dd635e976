"""Files of LyCORIS, of every method that it trains, compute what LyCORIS makes of them."""

import pytest
import refiners
from safetensors.torch import save_file

from .lora_network import networks
from .lycoris_peer import KINDS, trained


@pytest.fixture(scope="module", params=["sd15"])
def pair(request, sd15_folder):
    """A tiny pipeline of diffusers, and ours, read from the folder that theirs was saved to."""
    pipe, folder = sd15_folder
    return pipe, refiners.load_model(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_networks_equal_those_of_lycoris(pair, kind, tmp_path, differ):
    pipe, model = pair
    with trained(pipe, kind) as tensors:
        save_file(tensors, tmp_path / "style.safetensors")
        adapter = refiners.load_adapter(tmp_path / "style.safetensors", model)
        try:
            for (name, ours, theirs), (_, bare, _) in zip(
                networks(pair, {adapter: 1.0}), networks(pair, {}), strict=True
            ):
                assert differ(ours, theirs) <= 1e-5, name
                assert differ(bare, theirs) > 1e-3, name
        finally:
            adapter.eject()
