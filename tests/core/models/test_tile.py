"""Pictures of any size in little memory, and numbers too large for float16."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from refiners_core import Adapter, Chain, Lambda, select
from refiners_core.errors import ModelError
from refiners_core.models.vae import AutoencoderConfig, AutoencoderKL, Tiling

CONFIG = AutoencoderConfig(channels=(8, 8, 8), blocks=1, groups=4)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return AutoencoderKL(CONFIG).eval().requires_grad_(False)


def mean_of_places(x):
    """A network that sees nothing around a latent: tiles of it are parts of the whole."""
    return x.repeat_interleave(4, -1).repeat_interleave(4, -2) * 2


@pytest.mark.parametrize("size", [(8, 8), (20, 9), (40, 8), (33, 47)])
@pytest.mark.parametrize(("side", "overlap"), [(8, 0), (8, 3), (16, 8)])
def test_tiles_of_a_local_function_equal_the_whole(size, side, overlap):
    x = torch.randn(3, 2, *size)
    made = Tiling(side, overlap).map(mean_of_places, x, 1, 4)
    torch.testing.assert_close(made, mean_of_places(x))
    halved = Tiling(side, overlap).map(lambda x: x[..., ::4, ::4], mean_of_places(x), 4, 1)
    torch.testing.assert_close(halved, 2 * x)


def test_tiles_are_no_larger_than_asked_for():
    seen = []
    Tiling(8, 2, rows=2).map(lambda x: seen.append(x.shape) or x, torch.zeros(5, 1, 20, 8), 1, 1)
    assert {shape[2:] for shape in seen} == {(8, 8)}
    assert [shape[0] for shape in seen] == [2, 2, 2, 2, 2, 2, 1, 1, 1]


def test_an_image_that_fits_into_one_tile_is_not_tiled(model):
    z, pixels = torch.randn(1, 4, 8, 6), torch.randn(1, 3, 32, 24)
    whole = model.decode(z), model.encode(pixels, sample=False)
    model.tiling = Tiling(side=8, overlap=2)
    assert torch.equal(model.decode(z), whole[0])
    assert torch.equal(model.encode(pixels, sample=False), whole[1])


def test_a_tiled_image_is_close_to_the_whole_one(model, differ):
    z, pixels = torch.randn(2, 4, 32, 24), torch.randn(2, 3, 128, 96)
    whole = model.decode(z), model.encode(pixels, sample=False)
    model.tiling = Tiling(side=16, overlap=8)
    assert differ(model.decode(z), whole[0]) < 0.2
    assert differ(model.encode(pixels, sample=False), whole[1]) < 0.2
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    sampled = [model.encode(pixels, generator) for generator in generators]
    assert torch.equal(*sampled)


def test_a_model_generates_in_tiles(build_tiny):
    model = build_tiny()
    arguments = {"seed": 0, "steps": 2, "size": (128, 64), "output": "tensor", "progress": False}
    whole = model.generate("a", **arguments)
    model.autoencoder.tiling = Tiling(side=8, overlap=2)
    assert model.generate("a", **arguments).shape == whole.shape


def test_impossible_tiles_are_refused(model):
    for wrong in ({"side": 0}, {"side": 8, "overlap": 5}, {"overlap": -1}, {"rows": 0}):
        with pytest.raises(ModelError, match="at least twice as long as their overlap"):
            Tiling(**wrong)
    model.tiling = Tiling(side=8, overlap=2)
    with pytest.raises(ModelError, match="multiples of 4, not 33 x 32"):
        model.encode(torch.zeros(1, 3, 32, 33))


def test_numbers_too_large_for_float16_are_computed_in_float32(model, differ):
    twin = AutoencoderKL(replace(CONFIG, overflows_half=True))
    with torch.no_grad():
        for tree in (model.encoder, model.decoder):
            tree.conv_in.weight *= 2e5
    twin.load_state_dict(model.state_dict())
    z, pixels = torch.randn(1, 4, 8, 8), torch.randn(1, 3, 32, 32)
    expected = model.decode(z), model.encode(pixels, sample=False)
    model.half(), twin.half().requires_grad_(False)
    assert not model.decode(z.half()).isfinite().all()
    decoded, encoded = twin.decode(z.half()), twin.encode(pixels.half(), sample=False)
    assert decoded.dtype == encoded.dtype == twin.dtype == torch.float16
    assert differ(decoded.float(), expected[0]) < 1e-2
    assert differ(encoded.float(), expected[1]) < 1e-2
    assert twin.bfloat16().decode(z.bfloat16()).isfinite().all()


class Doubled(Adapter):
    """Doubles what goes out of a place of the autoencoder."""

    def __init__(self, path):
        super().__init__(name="doubled")
        self.path = path

    def edits(self, model):
        at = select(model).where(lambda seat: seat.path == self.path).expect(1)
        return at.wrap(lambda inner, seat: Chain(inner, Lambda(doubled)), stage="output")


def doubled(*outputs):
    twice = tuple(2 * x for x in outputs)
    return twice if len(twice) > 1 else twice[0]


@pytest.mark.parametrize("is_half", [False, True])
@pytest.mark.parametrize("path", ["encoder", "encoder.quant_conv", "decoder", "decoder.conv_out"])
def test_adapters_at_and_in_its_parts_run(path, is_half, differ):
    torch.manual_seed(0)
    model = AutoencoderKL(replace(CONFIG, overflows_half=is_half)).requires_grad_(False)
    model = model.half() if is_half else model
    x = torch.randn(1, 3, 8, 8, dtype=model.dtype), torch.randn(1, 4, 2, 2, dtype=model.dtype)

    def run():
        return model.decode(x[1]) if "decoder" in path else model.encode(x[0], sample=False)

    bare, weights = run(), {path: it.clone() for path, it in model.state_dict().items()}
    with Doubled(path).on(model):
        worn = run()
    assert differ(worn, 2 * bare) < 2e-3
    assert all(torch.equal(it, weights[path]) for path, it in model.state_dict().items())
    assert torch.equal(run(), bare)


def test_calls_in_several_threads_are_independent(model):
    twin = AutoencoderKL(replace(CONFIG, overflows_half=True)).half().requires_grad_(False)
    rows = torch.randn(16, 1, 4, 8, 8).half()
    alone = [twin.decode(z) for z in rows]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(twin.decode, rows))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert twin.dtype == torch.float16


def test_force_upcast_is_read():
    published = {
        "block_out_channels": [8],
        "down_block_types": ["DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D"],
    }
    assert AutoencoderConfig.from_json(published | {"force_upcast": True}).overflows_half
    assert not AutoencoderConfig.from_json(published).overflows_half


def test_tiles_fade_into_each_other_over_their_whole_overlap():
    """The first tile says 0 and the second 1: between them every position counts more of it."""
    draws = iter([0.0, 1.0])
    whole = Tiling(side=8, overlap=4).map(
        lambda tile: torch.full_like(tile, next(draws)), torch.zeros(1, 1, 1, 12), 1, 1
    )
    row = whole.flatten().tolist()
    assert row[:4] == [0] * 4
    assert row[8:] == [1] * 4
    assert 0 < row[4] < row[5] < row[6] < row[7] < 1
