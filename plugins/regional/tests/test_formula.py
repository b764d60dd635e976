"""Each adapter computes what its paper, or the code that made it known, computes."""

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from refiners_controlnet.adapter import ControlNet
from refiners_ipadapter.adapter import IpAdapter
from refiners_lora.adapter import Lora
from refiners_regional import tiled, upscale
from refiners_regional.attention import RegionalAttention
from refiners_regional.mask import normalised, region_mask
from refiners_regional.prompt import RegionalPrompts
from refiners_regional.shrink import DeepShrink
from refiners_regional.tiled import DecodeAround, MixtureOfDiffusers, MultiDiffusion
from refiners_regional.window import windows_of
from refiners_t2iadapter.adapter import T2iAdapter
from torch import Tensor, nn
from torch.nn.functional import interpolate

from refiners_core import Adapter, Condition, Context, Layer
from refiners_core.errors import ConditionError
from refiners_core.models.clip import ClipImageConfig
from refiners_core.models.diffusion import LatentDiffusion, Window, window_scope
from refiners_core.models.unet import skip_key
from refiners_core.testing import tiny_model, tiny_sdxl

OPTIONS: dict[str, Any] = {
    **{"steps": 1, "guidance": 3.0, "sampler": "ddim", "seed": 3, "negative_prompt": "blue"},
    **{"output": "latents", "progress": False},
}
BARE = tiny_model()
LEFT, RIGHT = {"prompt": "a cat", "box": (0, 0, 0.5, 1)}, {"prompt": "a dog", "box": (0.5, 0, 1, 1)}
PICTURE = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(4))


def small() -> LatentDiffusion:
    return copy.deepcopy(BARE)


def filled(adapter: Adapter, size: float = 0.2) -> Adapter:
    """Returns an adapter with random weights."""
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.copy_(torch.randn(weight.shape, generator=noise) * size)
    return adapter


class Note(Layer):
    """Appends its input and the context to a list."""

    def __init__(self, notes: list[Any]) -> None:
        super().__init__()
        self.notes = notes

    def run(self, context: Context, *inputs: Any) -> Any:
        self.notes.append((inputs[0].clone(), context))
        return inputs[0]


class Spy(Adapter):
    """Notes what the network reads, and what guidance reads."""

    def __init__(self) -> None:
        super().__init__(key="spy")
        self.read: list[Any] = []
        self.made: list[Any] = []

    def edits(self, model: Any) -> Any:
        return (
            *model.slot("denoise.predict").before("read", lambda seat: Note(self.read)),
            *model.slot("denoise.guidance").before("made", lambda seat: Note(self.made)),
        )


def predicted(model: LatentDiffusion, conditions: Any = None, **options: Any) -> Tensor:
    """Returns the prediction of the first step, with the rows of all branches."""
    with Spy().on(model) as spy:
        model.generate("a red star", conditions=conditions, **{**OPTIONS, **options})
    return spy.made[0][0]


def step(model: LatentDiffusion, conditions: Any = None, **options: Any) -> tuple[Tensor, Context]:
    """Returns what the network reads in the first step, and the context."""
    with Spy().on(model) as spy:
        model.generate("a red star", conditions=conditions, **{**OPTIONS, **options})
    return spy.read[0]


WIDE: dict[str, Any] = {"size": (80, 48)}


@torch.no_grad()
@pytest.mark.parametrize(
    "adapter", [MultiDiffusion, MixtureOfDiffusers], ids=lambda kind: kind.__name__
)
def test_predictions_in_windows_are_joined_by_their_weights(adapter: Any):
    model = small()
    x, context = step(model, **WIDE)
    values = {key: context[key] for key in ("timestep", "text")}
    total, weights = torch.zeros_like(x), torch.zeros(12, 20)
    gaussian = adapter is MixtureOfDiffusers
    line = [math.exp(-(((i - 3.5) / 8) ** 2) / 0.02) if gaussian else 1.0 for i in range(8)]
    weight = torch.outer(torch.tensor(line), torch.tensor(line))
    for top in (0, 3, 4):
        for left in (0, 3, 6, 9, 12):
            part = (..., slice(top, top + 8), slice(left, left + 8))
            total[part] += weight * model.unet(x[part], context=dict(values))
            weights[part] += weight
    for batch in (1, 4):
        with adapter(stride=12, batch=batch).on(model):
            joined = predicted(model, **WIDE)
        assert (joined - total / weights).abs().max() <= 1e-5 * (total / weights).abs().max()


@pytest.mark.parametrize("sampler", ["ddim", "unipc", "dpm++-2m"])
def test_one_window_and_two_that_are_the_picture_equal_plain_sampling(sampler, monkeypatch):
    model, options = small(), {"sampler": sampler, "steps": 3}
    bare = model.generate("a star", **{**OPTIONS, **options})
    with MultiDiffusion(key="multi").on(model):
        assert torch.equal(model.generate("a star", **{**OPTIONS, **options}), bare)
        whole = Window(0, 0, 8, 8)
        monkeypatch.setattr(tiled, "windows_of", lambda *_, **__: (whole, whole))
        twice = model.generate("a star", **{**OPTIONS, **options})
    torch.testing.assert_close(twice, bare, rtol=1e-4, atol=1e-5)


def test_windows_end_at_the_edge_and_wrap_around_in_a_circle():
    assert [w.left for w in windows_of((8, 20), (8, 8), (4, 5), is_circular=False)] == [
        0,
        5,
        10,
        12,
    ]
    circle = windows_of((8, 20), (8, 8), (4, 5), is_circular=True)
    assert [w.left for w in circle] == [0, 5, 10, 15]
    x = torch.arange(20.0).expand(1, 1, 8, 20)
    assert circle[-1].crop(x)[0, 0, 0].tolist() == [15, 16, 17, 18, 19, 0, 1, 2]
    total = torch.zeros(1, 1, 8, 20)
    for window in circle:
        window.add(total, torch.ones(8, 8))
    assert total[0, 0, 0].tolist() == [2, 2, 2, 1, 1] * 4


def test_a_circular_picture_is_the_same_from_everywhere():
    model = small()
    noise = torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(1))
    options = {**OPTIONS, "steps": 2, "seed": None}
    with MultiDiffusion(stride=16, circular=True).on(model):
        made, turned = (
            model.generate("a star", latents=x, **options) for x in (noise, noise.roll(4, -1))
        )
    torch.testing.assert_close(made.roll(4, -1), turned, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_circular_picture_is_decoded_across_its_edges():
    blur = nn.Sequential(nn.Upsample(scale_factor=2.0), nn.Conv2d(4, 3, 5, padding=2))
    decode = DecodeAround("scale", 4, blur)
    x = torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(1))
    values = {"scale": torch.tensor(1.0)}
    pixels, turned = (decode(y, context=dict(values)) for y in (x, x.roll(4, -1)))
    assert pixels.shape == (1, 3, 16, 32)
    torch.testing.assert_close(pixels.roll(8, -1), turned)
    assert torch.equal(decode(x, context={}), blur(x))


@torch.no_grad()
def test_spatial_values_are_cropped_to_the_window():
    """In a window the network sees what it sees of a picture of that size with cropped values."""
    model = tiny_sdxl()
    encoder = ClipImageConfig(
        image_size=32, patch_size=16, width=8, inner_width=16, layers=1, heads=2, projection_width=8
    )
    control = filled(ControlNet(channels=(4, 8, 8), key="control").inject(model))
    maps = filled(T2iAdapter(key="maps").inject(model))
    photo = filled(IpAdapter(encoder=encoder, tokens=2, key="photo").inject(model))
    style = filled(Lora(rank=2, key="style").inject(model))
    regions = RegionalPrompts(key="regions", mode="attention").inject(model)
    mask = torch.linspace(0, 1, 64).expand(1, 1, 32, 64)
    conditions = {
        **{control: PICTURE, maps: PICTURE, photo: Condition(PICTURE[..., :32], mask=mask)},
        **{style: Condition(mask=mask), regions: [LEFT, RIGHT]},
    }
    x, context = step(model, conditions, size=(64, 32))
    window = Window(0, 4, 8, 8)
    scope = window_scope(context, [window], context.memory.part("a window"))
    changed = {key for key in [*scope.keys()] if scope[key] is not context.get(key)}
    assert {f"{key}.features" for key in ("control",)} < changed
    shapes = {
        "control.features": (8, 8),
        "style.mask": (8, 8),
        "regions.masks": (8, 8),
        "photo.mask": (32, 32),
    }
    for key, shape in shapes.items():
        assert scope[key].shape[-2:] == shape, key
        scaled = window.at(round(-math.log2(shape[0] / 8)))
        assert torch.equal(scope[key], scaled.crop(context[key])), key
    assert scope["time_ids"][0].tolist() == [32, 32, 0, 0, 32, 32]
    tokens = context["photo.mask.128"].unflatten(-1, (8, 16))[..., 4:12].flatten(-2)
    assert torch.equal(scope["photo.mask.64"], tokens)
    assert torch.equal(scope["text"], context["text"])
    model.layer("denoise.predict")(window.crop(x), context=scope)


@torch.no_grad()
@pytest.mark.parametrize("base", [0.0, 0.25])
def test_attention_to_each_text_counts_within_its_mask(base: float):
    model = small()
    layer = next(seat.path for seat in model.slot("unet.cross_attention") if ".mid." in seat.path)
    regions = RegionalPrompts(key="regions", mode="attention", base=base).inject(model)
    seen: list[Any] = []
    inner = model.slot("unet.cross_attention").where(lambda seat: seat.path == layer)[0].layer
    inner.register_forward_hook(lambda _, args, out: seen.append((args, out)))
    (wrapper,) = [
        part
        for part in model.modules()
        if isinstance(part, RegionalAttention) and part.inner is inner
    ]
    wrapper.register_forward_hook(lambda _, args, out: seen.append((args, out)))
    predicted(model, {regions: [{**LEFT, "negative": "ink"}, {**RIGHT, "weight": 0.5}]})
    *(plain, left, right), joined = [out for _, out in seen]
    grid = joined.unflatten(1, (4, 4))
    whole, left, right = (x.unflatten(1, (4, 4)) for x in (plain, left, right))
    expected = whole.clone()
    expected[:, :, :2] = base * whole[:, :, :2] + (1 - base) * left[:, :, :2]
    share = 0.5 * (1 - base)
    mixed = whole[1, :, 2:] * (1 - share) + share * right[1, :, 2:]
    expected[1, :, 2:] = mixed  # the negative prompt of the right region is that of the picture
    torch.testing.assert_close(grid, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(grid[0, :, 2:], whole[0, :, 2:])


@pytest.mark.parametrize("build", [tiny_model, tiny_sdxl], ids=["sd15", "sdxl"])
def test_the_adapters_of_a_region_act_in_it_as_in_a_whole_picture(build: Any):
    model = build()
    loras = [
        filled(Lora(rank=2, key=key).inject(model), size)
        for key, size in (("first", 0.3), ("second", 0.2))
    ]
    text = filled(
        Lora(rank=2, key="text", where=lambda m: m.slot("text_encoder.linear")).inject(model)
    )
    first, second = loras
    regions = RegionalPrompts(key="regions").inject(model)
    empty = {"negative_prompt": ""}
    value = [
        {**LEFT, "conditions": {first: 0.5, text: 1.0}},
        {"prompt": "a dog", "box": (0.5, 0, 0.75, 1), "conditions": {second: 1.0}},
    ]
    joined = predicted(model, {regions: value, second: Condition(scale=0.8)}, **empty)
    again = predicted(model, {regions: value, second: Condition(scale=0.8)}, **empty)
    assert torch.equal(joined, again)

    def alone(prompt: str, conditions: Any) -> Tensor:
        with Spy().on(model) as spy:
            off = dict.fromkeys((first, second, text, regions))
            model.generate(prompt, conditions={**off, **conditions}, **{**OPTIONS, **empty})
        return spy.made[0][0]

    left = alone("a cat", {first: Condition(scale=0.5), text: Condition()})
    middle = alone("a dog", {second: Condition(scale=0.8)})
    rest = alone("a red star", {})
    for part, whole in (((0, 4), left), ((4, 6), middle), ((6, 8), rest)):
        columns = (..., slice(*part))
        torch.testing.assert_close(joined[columns], whole[columns], rtol=1e-4, atol=1e-5)


def test_the_network_runs_once_for_each_region_that_covers_the_picture():
    model, calls = small(), list[int]()
    model.unet.register_forward_hook(lambda _, args, out: calls.append(len(args[0])))
    regions = RegionalPrompts(key="regions").inject(model)
    whole = model.generate("a", conditions={regions: [LEFT, RIGHT]}, **OPTIONS)
    assert calls == [2, 2]
    with Spy().on(model):  # which may look at the pass of the whole picture
        again = model.generate("a", conditions={regions: [LEFT, RIGHT]}, **OPTIONS)
    assert calls[2:] == [2, 2, 2]
    torch.testing.assert_close(again, whole, rtol=1e-4, atol=1e-5)


def test_long_texts_and_regions_of_each_picture_have_their_own_length():
    model, long = small(), ", ".join(["a cat beside a dog"] * 9)
    for mode in ("attention", "latents"):
        with RegionalPrompts(key="regions", mode=mode).on(model) as regions:
            value: Any = [[{**LEFT, "prompt": long, "negative": "ink"}], [LEFT, RIGHT]]
            options = {**OPTIONS, "seed": [1, 2]}
            pair = model.generate(["a", "b"], conditions={regions: value}, **options)
            for i, prompt in enumerate("ab"):
                options = {**OPTIONS, "seed": [i + 1]}
                single = model.generate(prompt, conditions={regions: value[i]}, **options)
                torch.testing.assert_close(pair[i], single[0], rtol=1e-4, atol=1e-5)


def test_masks_have_any_size_and_add_up_to_at_most_one():
    box = region_mask(None, (0, 0, 0.3, 0.5), (4, 10), 0, "region 0")
    assert torch.equal(box[0, 0], torch.tensor([[1.0] * 3 + [0.0] * 7] * 2 + [[0.0] * 10] * 2))
    part = region_mask(None, (0.25, 0, 1, 1), (1, 2), 0, "region 0")
    assert part.flatten().tolist() == [0.5, 1.0]
    drawn = region_mask(torch.ones(7, 3), None, (8, 8), 0, "region 1")
    masks = normalised(torch.cat([drawn, 0.25 * drawn, drawn * 0], 1), (4, 4))
    torch.testing.assert_close(masks[0, :, 0, 0], torch.tensor([0.8, 0.2, 0.0]))
    alone = normalised(0.25 * drawn, (4, 4))
    torch.testing.assert_close(alone, torch.full((1, 1, 4, 4), 0.25))
    soft = region_mask(None, (0, 0, 0.5, 1), (32, 32), 0.1, "region 0")[0, 0, 16]
    assert (soft[1:] <= soft[:-1] + 1e-6).all()
    assert 0.3 < float(soft[16]) < float(soft[15]) < 0.7
    torch.testing.assert_close(soft[0], torch.tensor(1.0))


@torch.no_grad()
@pytest.mark.parametrize("block", [1, 2])
def test_maps_shrink_after_a_block_and_are_restored_at_its_skip(block: int):
    model = small()
    x, context = step(model, size=(48, 40))
    values = {key: context[key] for key in ("timestep", "text")}
    twin = copy.deepcopy(model)
    entry = twin.layer({1: "unet.down.0.downsample", 2: "unet.down.1.resnet_0"}[block])
    entry.register_forward_pre_hook(
        lambda _, args: (
            interpolate(args[0], [round(s / 2) for s in args[0].shape[-2:]], mode="bicubic"),
            *args[1:],
        )
    )
    up = {1: "unet.up.1.read_1", 2: "unet.up.0.read_1"}[block]
    seen = {}

    def restore(_: Any, args: Any, kwargs: Any) -> Any:
        like = seen["skip"].shape[-2:]
        return (interpolate(args[0], like, mode="bicubic"), *args[1:]), kwargs

    written = {1: "unet.down.0.write_0", 2: "unet.down.0.write_1"}[block]
    twin.layer(written).register_forward_hook(lambda _, args, out: seen.update(skip=out))
    twin.layer(up).register_forward_pre_hook(restore, with_kwargs=True)
    expected = twin.unet(x, context=dict(values))
    with DeepShrink(block=block).on(model):
        made = predicted(model, size=(48, 40))
    assert not torch.allclose(made, model.unet(x, context=dict(values)), atol=1e-3)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)
    assert skip_key(block) in context


@torch.no_grad()
def test_a_side_network_sees_shrunk_maps_in_their_full_size():
    model = small()
    bare = predicted(model, size=(64, 32))
    mid = [0.0] * len(model.slot("unet.skip.write")) + [1.0]
    control = filled(ControlNet(channels=(4, 8, 8), layers=mid, key="control").inject(model))
    maps = filled(T2iAdapter(key="maps").inject(model))
    with DeepShrink(key="shrink").on(model):
        shrunk = predicted(model, {control: None, maps: None}, size=(64, 32))
        made = predicted(model, {control: PICTURE, maps: None}, size=(64, 32))
        muted = predicted(model, {control: 0 * PICTURE, maps: None}, size=(64, 32))
        lower = predicted(model, {control: None, maps: PICTURE}, size=(64, 32))
        for adapter in (control, maps):
            adapter.eject()
        assert torch.equal(shrunk, predicted(model, size=(64, 32)))
    results = bare, shrunk, made, muted, lower
    for a, b in itertools.combinations(results, 2):
        assert not torch.allclose(a, b, atol=1e-4)


def test_a_picture_grows_in_passes_and_worn_adapters_read_it():
    model = small()
    control = filled(ControlNet(channels=(4, 8, 8), key="control").inject(model))
    seen: list[Any] = []
    encode = control.encode
    control.encode = lambda value, request: (seen.append(value.size), encode(value, request))[1]
    options: Any = {"steps": 2, "seed": 3, "progress": False, "strength": 0.5}
    tiles = MultiDiffusion(stride=24, key="tiles")
    grown = upscale(model, PICTURE, "a star", factor=1.5, passes=2, tiles=tiles, **options)
    assert grown.size == (96, 48)
    assert seen == [(80, 40), (96, 48)]
    assert model.adapters == (control,)
    options |= {"factor": 1.25}
    weak = upscale(model, PICTURE, conditions={control: Condition(scale=0.5)}, **options)
    left = upscale(model, PICTURE, conditions={control: None}, **options)
    assert weak.tobytes() != left.tobytes()
    assert seen[2:] == [(80, 40)]
    with tiles.on(model):
        assert upscale(model, PICTURE, **options).size == (80, 40)
        assert model.adapters == (control, tiles)


def test_an_adapter_of_a_region_needs_a_pass_of_its_own():
    model = small()
    style = Lora(rank=2, key="style").inject(model)
    with (
        RegionalPrompts(key="regions", mode="attention").on(model) as regions,
        pytest.raises(ConditionError, match="all regions share the weights"),
    ):
        model.generate("a", conditions={regions: [{**LEFT, "conditions": {style: 1}}]}, **OPTIONS)
