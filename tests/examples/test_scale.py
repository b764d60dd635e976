"""Scales by place, over the steps and by picture, on adapters that know nothing of them."""

from collections.abc import Callable
from typing import Any

import brushnet
import controlnet
import ip_adapter
import layer_diffuse
import lora
import motion
import pytest
import style_aligned
import t2i_adapter
import text_encoder
import torch
from refiners_freeu.adapter import FreeU
from refiners_iclight.adapter import ForegroundLight
from refiners_reference.attention import ReferenceOnly
from torch import Tensor, nn

from refiners_core import Adapter, Condition, Context, Layer, Passthrough, Sum, When, select
from refiners_core.errors import ConditionError
from refiners_core.models.unet import UNetConfig
from refiners_core.models.vae import Tiling
from refiners_core.testing import tiny_model
from refiners_core.testing.case import bits

from .test_contract import PICTURE

FAMILIES: dict[str, tuple[Callable[[], Adapter], Any]] = {
    "LoRA": (lora.LowRank, None),
    "DoRA": (lambda: lora.LowRank(lora.DoraChange), None),
    "IP-Adapter": (ip_adapter.ImagePrompt, PICTURE),
    "ControlNet": (controlnet.ControlNet, PICTURE),
    "BrushNet": (brushnet.BrushNet, PICTURE),
    "T2I-Adapter": (t2i_adapter.T2iAdapter, PICTURE),
    "IC-Light": (lambda: ForegroundLight(key="light"), PICTURE),
    "reference-only": (ReferenceOnly, PICTURE),
    "FreeU": (FreeU, None),
    "StyleAligned": (style_aligned.StyleAligned, None),
    "AnimateDiff": (motion.Motion, None),
}
OPTIONS: dict[str, Any] = {"steps": 2, "seed": 7, "output": "latents", "progress": False}


@pytest.fixture(scope="module")
def bare() -> Any:
    return tiny_model()


def worn(model: Any, family: str) -> tuple[Adapter, Any]:
    """Returns an adapter on the model, with weights that change something, and its value."""
    make, value = FAMILIES[family]
    torch.manual_seed(0)
    adapter = make().inject(model)
    with torch.no_grad():
        for weight in adapter.parameters():
            if not weight.any():
                weight.normal_(std=0.1)
    return adapter, value


@pytest.fixture
def model(bare: Any):
    yield bare
    bare.eject_all()


def generate(model: Any, conditions: Any, **options: Any) -> Tensor:
    return model.generate("a cat", conditions=conditions, **{**OPTIONS, **options})


def scaled(model: Any, adapter: Adapter, value: Any, scale: Any, **options: Any) -> Tensor:
    return generate(model, {adapter: Condition(value, scale=scale)}, **options)


# --- by place --------------------------------------------------------------------------------


def kept_at(adapter: Any, is_kept: Callable[[str], bool]) -> None:
    """Reduces the edits of an adapter to some places, beside its producers at `unet.input`."""
    edits = type(adapter).edits

    def reduced(model: Any) -> Any:
        for edit in edits(adapter, model):
            seats = [s for s in edit.seats if is_kept(s.path) or s.path == "unet.input"]
            yield edit._replace(seats=tuple(seats))

    adapter.edits = reduced


@pytest.mark.parametrize("family", ["LoRA", "DoRA", "IP-Adapter", "ControlNet", "BrushNet"])
def test_a_place_that_is_not_named_is_as_if_the_adapter_did_not_edit_it(model, family):
    adapter, value = worn(model, family)
    mapped = scaled(model, adapter, value, {"unet.mid": 0.4})
    kept_at(adapter.eject(), lambda path: path.startswith("unet.mid"))
    adapter.inject(model)
    assert bits(mapped) == bits(scaled(model, adapter, value, 0.4))
    adapter.eject()
    assert bits(mapped) != bits(generate(model, {}))


@pytest.mark.parametrize("family", ["T2I-Adapter", "IC-Light", "FreeU", "AnimateDiff"])
def test_the_places_of_an_adapter_together_are_the_whole_adapter(model, family):
    adapter, value = worn(model, family)
    whole = scaled(model, adapter, value, 0.7)
    assert bits(scaled(model, adapter, value, {"unet": 0.7})) == bits(whole)
    levels = {"unet.down": 0.7, "unet.mid": 0.7, "unet.up": 0.7}
    rest = {name: 0.7 for name in ("unet.conv_in", "unet.time_embedding", "unet.conv_out",
                                   "unet.norm") if family == "IC-Light"}  # fmt: skip
    named = [name for name in levels if acts_at(model, adapter, value, name)]
    assert named
    by_level = scaled(model, adapter, value, {**dict.fromkeys(named, 0.7), **rest})
    assert bits(by_level) == bits(whole)
    off = dict.fromkeys(named, 0.0)
    assert bits(scaled(model, adapter, value, off)) == bits(generate(model, {adapter: None}))


def acts_at(model: Any, adapter: Adapter, value: Any, name: str) -> bool:
    try:
        model.check("", conditions={adapter: Condition(value, scale={name: 1.0})})
    except ConditionError:
        return False
    return True


def test_the_name_for_fewer_places_wins(model):
    adapter, _ = worn(model, "LoRA")
    scales = {
        "unet": 1.0,
        "unet.linear": 0.9,
        "unet.cross_attention": 0.2,
        "unet.up": 0.5,
        "unet.up.0": 0.0,
        "unet.cross_attention.0": 0.3,
        "unet.conv_in": 0.7,
        "unet.conv": 0.8,
    }
    mixed = scaled(model, adapter, None, scales)
    first = model.slot("unet.cross_attention")[0].path

    def scale_of(path: str) -> float:
        if path.startswith("unet.up."):
            return 0.0 if path.startswith("unet.up.0.") else 0.5
        if path == "unet.conv_in":
            return 0.7
        if "cross_attention" in path:
            return 0.3 if path.startswith(f"{first}.") else 0.2
        if not path.startswith("unet."):
            return 0.0
        return 0.9 if isinstance(model.layer(path), nn.Linear) else 0.8

    with torch.no_grad():
        for name, change in adapter.own_layers.named_children():
            change.up.mul_(scale_of(name.replace("/", ".")))
    assert (mixed - scaled(model, adapter, None, 1.0)).abs().max() < 1e-5


def places_inside(model: Any, name: str) -> set[str]:
    roots = [seat.path for seat in model.slot(name)] if name != "unet" else ["unet"]
    slots = ("unet.linear", "unet.conv", "text_encoder.linear")
    paths = {seat.path for slot in slots for seat in model.slot(slot)}
    return {path for path in paths if any(f"{path}.".startswith(f"{root}.") for root in roots)}


def test_a_place_at_0_computes_nothing(model):
    adapter, _ = worn(model, "LoRA")
    ran: list[str] = []
    handles = [
        change.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, change in adapter.own_layers.named_children()
    ]
    scales = {"unet.mid": [(0.0, 0.0), (0.5, 1.0)], "text_encoder": 0.0}
    scaled(model, adapter, None, scales, steps=4)
    for handle in handles:
        handle.remove()
    inside = {path.replace(".", "/") for path in places_inside(model, "unet.mid")}
    assert set(ran) == inside
    assert len(ran) == 3 * len(inside)  # of four steps, the first has 0


def test_texts_are_read_with_the_scale_of_their_encoder(model):
    adapter, _ = worn(model, "LoRA")
    both = scaled(model, adapter, None, {"unet": 1.0, "text_encoder": 1.0})
    assert bits(both) == bits(scaled(model, adapter, None, 1.0))
    texts = scaled(model, adapter, None, {"text_encoder": 0.5})
    kept_at(adapter.eject(), lambda path: path.startswith("text_encoder."))
    adapter.inject(model)
    assert bits(texts) == bits(scaled(model, adapter, None, 0.5))
    assert bits(texts) != bits(generate(model, {adapter: None}))


# --- over the steps --------------------------------------------------------------------------


class Probe(Adapter):
    """Records the scale that it finds at each step in the first convolution."""

    def edits(self, model):
        self.scales: dict[int, list[float]] = {}
        recorded = Recorded(self.scale_key, self.scales)
        return model.slot("unet.conv_in").wrap(lambda inner, seat: Sum(inner, recorded))


class Recorded(Layer):
    def __init__(self, key: str, scales: dict[int, list[float]]) -> None:
        super().__init__()
        self.key, self.scales = key, scales

    def run(self, context: Context, *inputs: Tensor) -> None:
        scale = context.get(self.key)
        if scale is not None:
            self.scales[context["step"]] = [round(x, 6) for x in scale.flatten().tolist()]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Condition(scale=[(0.0, 1.0), (0.5, 0.2)]), {0: [1.0], 1: [0.6], 2: [0.2], 3: [0.2]}),
        (Condition(scale=[(0.25, 1.0), (0.25, 0.5)]), {0: [1.0], 1: [0.5], 2: [0.5], 3: [0.5]}),
        (Condition(scale=lambda progress: progress), {1: [0.25], 2: [0.5], 3: [0.75]}),
        (Condition(scale=lambda progress: progress, end=0.5), {1: [0.25]}),
        (
            Condition(scale=lambda progress: {"unet": 1 - progress}, start=0.5),
            {2: [0.5], 3: [0.25]},
        ),
        (Condition(scale={"unet.conv_in": [(0.0, 1.0), (1.0, 0.0)]}, end=0.25), {0: [1.0]}),
    ],
)
def test_a_schedule_gives_each_step_its_scale(model, condition, expected):
    probe = Probe(key="probe").inject(model)
    generate(model, {probe: condition}, steps=4, guidance=1)
    assert probe.scales == expected


@pytest.mark.parametrize("family", ["LoRA", "ControlNet"])
def test_a_schedule_of_0_and_1_is_a_span(model, family):
    adapter, value = worn(model, family)
    adapter_free = generate(model, {adapter: None}, steps=4)
    half = generate(model, {adapter: Condition(value, end=0.5)}, steps=4)
    steps = scaled(model, adapter, value, lambda progress: float(progress < 0.5), steps=4)
    assert bits(steps) == bits(half) != bits(adapter_free)
    assert bits(scaled(model, adapter, value, lambda _: 0, steps=4)) == bits(adapter_free)


# --- by picture ------------------------------------------------------------------------------


@pytest.mark.parametrize("is_sequential", [False, True])
@pytest.mark.parametrize(
    "family", [name for name in FAMILIES if name not in ("AnimateDiff", "StyleAligned")]
)
def test_each_picture_is_that_of_its_scale(model, family, is_sequential):
    adapter, value = worn(model, family)
    options = {"count": 3, "sequential": is_sequential}
    absent = generate(model, {adapter: None}, **options)
    half = scaled(model, adapter, value, 0.5, **options)
    each = scaled(model, adapter, value, [0.5, 0.0, 1.0], **options)
    assert bits(each[1]) == bits(absent[1])
    assert bits(each[0]) == bits(half[0])
    assert bits(each[2]) == bits(scaled(model, adapter, value, 1.0, **options)[2])
    assert bits(each[0]) != bits(absent[0])


@pytest.mark.parametrize("family", ["AnimateDiff", "StyleAligned"])
def test_a_picture_at_0_is_left_alone_by_what_joins_pictures(model, family):
    adapter, value = worn(model, family)
    absent = generate(model, {adapter: None}, count=3)
    each = scaled(model, adapter, value, torch.tensor([1.0, 0.0, 1.0]), count=3)
    assert bits(each[1]) == bits(absent[1])
    assert bits(each[2]) != bits(absent[2])


def test_places_steps_and_pictures_combine(model):
    adapter, _ = worn(model, "LoRA")
    scale = {"unet.mid": [lambda progress: 1 - progress, 0.0], "text_encoder": [0.0, 0.3]}
    both = scaled(model, adapter, None, scale, count=2)
    first = {"unet.mid": [(0.0, 1.0), (1.0, 0.0)]}
    assert bits(both[0]) == bits(scaled(model, adapter, None, first, count=2)[0])
    second = {"text_encoder": 0.3}
    assert bits(both[1]) == bits(scaled(model, adapter, None, second, count=2)[1])
    by_picture = [{"unet.mid": [(0.0, 1.0), (1.0, 0.0)]}, {"text_encoder": 0.3}]
    assert bits(scaled(model, adapter, None, by_picture, count=2)) == bits(both)


def test_two_prompts_with_scales_by_picture_keep_their_texts(model):
    adapter, _ = worn(model, "LoRA")

    def made(scale: Any) -> Tensor:
        condition = {adapter: Condition(scale=scale)}
        return model.generate(["a cat", "a dog"], conditions=condition, count=2, **OPTIONS)

    each = made({"text_encoder": [0.0, 1.0, 1.0, 0.0]})
    whole, absent = made({"text_encoder": 1.0}), made({"text_encoder": 0.0})
    for i, expected in enumerate((absent, whole, whole, absent)):
        assert bits(each[i]) == bits(expected[i])


# --- what cannot be scaled so ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ({"unet.midd": 1}, r"'unet.midd' is not a place of this sd15; lora acts at .*'unet.mid'\?"),
        ({"mid": 1}, r"'mid' is not a place of this sd15; .*Did you mean 'unet.mid'\?"),
        ({"unet.up.7": 1}, "'unet.up.7' is not a place"),
        ({"denoise.step": 1}, "lora does not act at 'denoise.step' of this sd15; lora acts at"),
        ({"unet": 1, "autoencoder": 1}, "lora does not act at 'autoencoder'"),
        ([1, 2, 3], "lora has 3 scales for 2 pictures.*count=3"),
        (lambda _: "much", "scale of a condition at progress 0 is a finite number, not 'much'"),
        ([[(0, 1), (1, [1, 2])], 1], "scale of a condition for picture or text 1 at progress 1"),
    ],
)
def test_a_scale_that_does_not_fit_is_refused_before_anything_runs(model, scale, message):
    adapter, _ = worn(model, "LoRA")
    ran: list[Any] = []
    handle = model.text_encoder.register_forward_hook(lambda *_: ran.append(1))
    lora_key = adapter.key
    with pytest.raises(ConditionError, match=message.replace("lora", lora_key)):
        scaled(model, adapter, None, scale, count=2)
    handle.remove()
    assert not ran


def test_an_adapter_whose_layers_do_not_read_the_scale_takes_one_number(model):
    longer = text_encoder.Longer(key="longer").inject(model)
    scaled(model, longer, None, {"text_encoder": 0.0})  # reads it

    class Deaf(Adapter):
        def edits(self, model):
            return model.slot("unet.mid").wrap(lambda inner, seat: Sum(inner))

    deaf = Deaf(key="deaf").inject(model)
    for scale, by in (({"unet": 1}, "place"), ([1, 0], "picture")):
        with pytest.raises(ConditionError, match=f"deaf has a scale by {by}, but none of its lay"):
            scaled(model, deaf, None, scale, count=2)


def test_an_adapter_that_makes_other_rows_cannot_be_scaled_by_picture(model):
    class AddBranch(Layer):
        def run(self, context, *inputs):
            context["branches"] = (*context["branches"], "more")

    class OneMore(Adapter):
        def edits(self, model):
            add = Passthrough(When(self.scale_key, AddBranch()))
            return model.slot("denoise.branches").before("more", lambda seat: add)

    more = OneMore(key="more").inject(model)
    with pytest.raises(ConditionError, match="more does not act on single pictures at denoise"):
        scaled(model, more, None, [1.0, 0.0], count=2)


# --- the autoencoder -------------------------------------------------------------------------


@pytest.mark.parametrize("is_tiled", [False, True])
def test_pictures_are_encoded_and_decoded_with_their_scales(bare, is_tiled):
    model = tiny_model()
    torch.manual_seed(0)
    adapter = layer_diffuse.LayerDiffuse(key="layer").inject(model)
    changes = lora.LowRank(slots=("autoencoder.conv",), key="changes").inject(model)
    model.autoencoder.tiling = Tiling(side=8, overlap=2) if is_tiled else None
    image = torch.rand(1, 3, 32, 32)

    def made(scale: Any, change: Any) -> Tensor:
        conditions = {adapter: Condition(PICTURE, scale=scale), changes: Condition(scale=change)}
        return generate(model, conditions, image=image, count=2, output="tensor")

    assert made(1.0, 1.0).shape == (2, 4, 32, 32)
    assert made({"autoencoder.encode": 1.0}, 0).shape == (2, 3, 32, 32)
    assert bits(made({"autoencoder.encode": 1.0}, 0)) != bits(made(0, 0))
    each = made(0, [1.0, 0.0])
    assert bits(each[1]) == bits(made(0, 0)[1])
    assert bits(each[0]) == bits(made(0, 1.0)[0]) != bits(made(0, 0)[0])
    assert bits(made(0, {"autoencoder": 1.0})) == bits(made(0, 1.0))


# --- compiled --------------------------------------------------------------------------------


class Counted:
    """A backend that counts the compiled graphs."""

    def __init__(self) -> None:
        torch.compiler.reset()
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, _: Any) -> Any:
        self.graphs += 1
        return graph


def test_blocks_of_a_kind_share_a_graph_whatever_their_scales(bare):
    config = UNetConfig(channels=(8,), layers=(1,), depths=(1,), heads=(2,), text_width=8, groups=4)
    model = tiny_model(unet=config)
    adapter, _ = worn(model, "IP-Adapter")
    counted = Counted()
    by_block = {"unet.mid": 0.4, "unet.up.0": 1.0}
    by_slot = {"unet.cross_attention.attend": 0.4}
    scales = [1.0, by_block, by_slot, [0.0, 0.5]]
    others = [0.3, {"unet.mid": 1.4, "unet.up.0": 0.1}, {"unet.cross_attention": 0.7}, [0.9, 0.0]]

    def run(scale: Any) -> Any:
        condition = {adapter: Condition(PICTURE, scale=scale)}
        return bits(generate(model, condition, steps=1, guidance=1, count=2))

    eager = [run(scale) for scale in scales]
    model.compile(backend=counted)
    graphs: list[int] = []
    for scale, expected in zip(scales, eager, strict=True):
        assert run(scale) == expected
        graphs.append(counted.graphs)
    assert graphs[0] == len(kinds(model))
    assert graphs[1] - graphs[0] <= 1  # the transformer block that the adapter does not act in
    assert graphs[2] == graphs[1]  # one scale for every place of a block, as any scale
    assert graphs[3] - graphs[2] == 1  # the transformer block with rows of scales
    for scale in others:
        run(scale)
    assert counted.graphs == graphs[-1]


def kinds(model: Any) -> set[str]:
    blocks = select(model).of(*model.repeated)
    return {repr(seat.layer) for seat in blocks if not seat.path.startswith("autoencoder.")}
