"""Cached latents: the numbers of their autoencoder, once; wrong caches and NaN are refused."""

import json

import pytest
import torch
from refiners_train.data.data_error import DataError
from refiners_train.data.folder import Folder
from refiners_train.data.framing import Framing
from refiners_train.data.latent_cache import LatentCache
from refiners_train.data.picture_source import PictureSource
from refiners_train.data.picture_spec import open_pictures

from refiners_core.models.vae import AutoencoderConfig, AutoencoderKL

from .pictures import write_pictures


def autoencoder(factor: float = 0.3, seed: int = 0) -> AutoencoderKL:
    torch.manual_seed(seed)
    sizes = {"channels": (8, 8), "groups": 4, "blocks": 1}
    return AutoencoderKL(AutoencoderConfig(**sizes, scaling_factor=factor, shift_factor=0.1))


@pytest.fixture
def source(tmp_path):
    folder = Folder(write_pictures(tmp_path / "p", a=(20, 16), b=(16, 16), c=(16, 20)))
    return PictureSource(folder, (16, 16), Framing("random", 0.5))


def test_a_cached_run_sees_the_latents_of_a_live_one(tmp_path, source):
    model = autoencoder()
    cache = LatentCache(source, model, tmp_path / "c", variants=3, is_sampled=False)
    cache.fill(model, rows=2)
    for epoch in (0, 1, 2, 4):
        for index in range(3):
            live = source.example(index, epoch % 3)
            with torch.no_grad():
                latents = model.encode(live.picture[None] * 2 - 1, sample=False)[0]
            cached = cache.example(index, epoch)
            assert (cached.latents - latents).abs().max() < 1e-5
            assert (cached.corner, cached.text) == (live.corner, live.text)


def test_latents_are_sampled_anew_in_each_epoch(tmp_path, source):
    model = autoencoder()
    cache = LatentCache(source, model, tmp_path / "c")
    cache.fill(model)
    draws = torch.stack([cache.example(0, epoch).latents for epoch in range(400)])
    assert torch.equal(cache.example(0, 7).latents, draws[7])
    with torch.no_grad():
        mean, log_variance = model.moments(source.example(0, 0).picture[None] * 2 - 1)
    assert (draws.mean(0) - (mean[0] - 0.1) * 0.3).abs().max() < 0.1
    assert (draws.std(0) / (0.3 * torch.exp(0.5 * log_variance[0])) - 1).abs().max() < 0.2


def test_a_half_precision_autoencoder_encodes_in_float32(tmp_path, source):
    model = autoencoder().half()
    cache = LatentCache(source, model, tmp_path / "c", is_sampled=False)
    cache.fill(model)
    assert model.dtype == torch.float16
    with torch.no_grad():
        exact = model.float().encode(source.example(0, 0).picture[None] * 2 - 1, sample=False)[0]
    assert (cache.example(0, 0).latents - exact).abs().max() < 1e-5


@pytest.mark.parametrize("change", ["weights", "factor", "dtype", "crop", "flip", "pictures"])
def test_a_cache_of_anything_else_is_refused(tmp_path, source, change):
    model = autoencoder()
    LatentCache(source, model, tmp_path / "c").fill(model)
    dtype = torch.float32
    if change == "weights":
        model = autoencoder(seed=1)
    elif change == "factor":
        model = autoencoder(factor=0.5)
    elif change == "dtype":
        dtype = torch.float16
    elif change == "pictures":
        source = PictureSource(
            Folder(write_pictures(tmp_path / "q", a=(9, 9))), (16, 16), source.framing
        )
    else:
        framing = Framing("center", 0.5) if change == "crop" else Framing("random", 0.0)
        source = PictureSource(source.records, (16, 16), framing)
    with pytest.raises(DataError, match="autoencoder" if change == "weights" else change):
        LatentCache(source, model, tmp_path / "c", dtype=dtype)


def test_latents_that_are_not_finite_stop_the_run_with_the_name_of_the_file(tmp_path, source):
    model = autoencoder()
    with torch.no_grad():
        model.layer("encoder.conv_out", torch.nn.Conv2d).bias.fill_(1e5)
    cache = LatentCache(source, model, tmp_path / "c", dtype=torch.float16)
    with pytest.raises(DataError, match=r"a\.png are not finite in float16"):
        cache.fill(model)
    assert not list((tmp_path / "c").glob("*.safetensors"))


def test_an_interrupted_cache_goes_on(tmp_path, source):
    model = autoencoder()
    cache = LatentCache(source, model, tmp_path / "c", is_sampled=False)
    cache.fill(model)
    (tmp_path / "c/0000001-0.safetensors").unlink()
    with pytest.raises(DataError, match="fill"):
        cache.example(1, 0)
    encoded = []
    cache.fill(model, progress=lambda done, total: encoded.append((done, total)))
    assert encoded == [(1, 1)]
    assert json.loads((tmp_path / "c/cache.json").read_text())["factor"] == 0.3


def test_a_configuration_opens_cached_pictures(tmp_path):
    write_pictures(tmp_path / "p", a=(16, 16))
    options = {
        "cache": {"folder": str(tmp_path / "c")},
        "prior": {"source": f"folder:{tmp_path}/p"},
    }
    model = autoencoder()
    source = open_pictures(
        f"folder:{tmp_path}/p", options, size=(16, 16), seed=0, autoencoder=model
    )
    assert [source.example(index, 0).latents.shape for index in (0, 1)] == [(4, 8, 8)] * 2
    assert source.example(0, 0).picture is None
