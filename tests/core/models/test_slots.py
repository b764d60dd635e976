import copy
import pickle

import pytest
import torch
from torch import nn

from refiners_core import Adapter, Chain, Lambda, Model, Sum, select
from refiners_core.errors import ModelError, PlanError, SelectionError
from refiners_core.models import sd15
from refiners_core.models.clip import ClipTextConfig
from refiners_core.models.diffusion import SLOTS
from refiners_core.models.unet import UNetConfig
from refiners_core.surgery.slot import Slot

COUNTS = {
    "unet.input": 1,
    "unet.conv_in": 1,
    "unet.conv_out": 1,
    "unet.time_embedding": 1,
    "unet.skip.write": 12,
    "unet.skip.read": 12,
    "unet.skip.backbone": 12,
    "unet.down": 4,
    "unet.down.output": 4,
    "unet.down.downsample": 3,
    "unet.mid": 1,
    "unet.mid.output": 1,
    "unet.up": 4,
    "unet.up.output": 4,
    "unet.up.upsample": 3,
    "unet.residual": 22,
    "unet.transformer": 16,
    "unet.feed_forward": 16,
    "unet.self_attention": 16,
    "unet.self_attention.attend": 16,
    "unet.cross_attention": 16,
    "unet.cross_attention.attend": 16,
    "unet.linear": 184,
    "unet.conv": 98,
    "unet.norm": 109,
    "denoise.branches": 1,
    "denoise.predict": 1,
    "denoise.guidance": 1,
    "denoise.step": 1,
    "text_encoder.linear": 72,
    "text_encoder.norm": 12 * 2 + 1,
    "text_encoder.embedding": 1,
    "text_encoder.layer": 12,
    "text_encoder.output": 1,
    "text_encoder.text": 1,
    "autoencoder.encode": 1,
    "autoencoder.decode": 1,
    "autoencoder.linear": 8,
    "autoencoder.conv": 64,
}


@pytest.fixture(scope="module")
def full():
    return sd15.build(device="meta")


@pytest.mark.parametrize("name", SLOTS)
def test_stable_diffusion_has_the_places_of_its_slots(full, name):
    assert len(full.slot(name)) == COUNTS[name]


def test_places_come_in_execution_order(full):
    levels = [seat.path.split(".")[1:3] for seat in full.slot("unet.cross_attention")]
    down = [["down", str(i)] for i in (0, 0, 1, 1, 2, 2)]
    up = [["up", str(i)] for i in (1, 1, 1, 2, 2, 2, 3, 3, 3)]
    assert levels == [*down, ["mid", "transformer"], *up]
    keys = [seat.chain.keep.key for seat in full.slot("unet.skip.write")]
    assert keys == [f"unet.skip.{i}" for i in range(12)]
    reads = [seat.layer.key for seat in full.slot("unet.skip.read")]
    assert reads == keys[::-1]


def test_places_run_in_the_order_in_which_they_are_listed(model):
    seats = [seat for name in SLOTS for seat in model.slot(name)]
    ran = []
    for seat in {id(seat.layer): seat for seat in seats}.values():
        seat.layer.register_forward_pre_hook(lambda *_, path=seat.path: ran.append(path))
    image = torch.rand(1, 3, 32, 32)
    options = {"image": image, "strength": 1, "output": "tensor"}
    model.generate("a", seed=0, steps=1, guidance=1, progress=False, **options)
    for name in SLOTS:
        paths = [seat.path for seat in model.slot(name)]
        assert [path for path in ran if path in paths] == paths


def test_every_slot_has_a_meaning(full):
    assert all(slot.meaning for slot in SLOTS.values())
    assert full.facts == {"cross_attention_dim": 768, "latent_channels": 4, "unet_channels": 4}
    assert full.base == "sd15"


def test_an_unknown_slot_is_refused_with_a_near_one(full):
    with pytest.raises(
        SelectionError, match=r"sd15 has no slot 'unet.atention'.*Did you mean"
    ) as e:
        full.slot("unet.atention")
    assert "unet.cross_attention.attend" in e.value.message
    with pytest.raises(SelectionError, match="finds places without a slot"):
        full.slot("zzz")


def test_paths_begin_at_the_model_and_a_shared_component_counts_once(full):
    paths = [seat.path for seat in select(full)]
    assert "denoise.predict.unet" in paths
    assert not any(path.startswith("denoise.predict.unet.") for path in paths)
    assert len(paths) == len(set(paths))


def test_a_model_is_not_called_as_a_whole(model):
    with pytest.raises(ModelError, match=r"not called as a whole. Use generate\(prompt\)"):
        model(torch.zeros(1))


def test_parts_that_do_not_suit_each_other_are_refused():
    with pytest.raises(ModelError, match="the UNet reads texts of width: 768, texts have: 512"):
        sd15.build(text_encoder=ClipTextConfig(width=512, heads=8), device="meta")
    with pytest.raises(ModelError, match="the UNet reads channels: 8, latents and a mask have: 9"):
        sd15.build(unet=UNetConfig(in_channels=8), device="meta")


def test_dtype_and_device_are_those_asked_for(build_tiny):
    assert build_tiny(dtype=torch.bfloat16).unet.dtype == torch.bfloat16
    assert all(weight.is_meta for weight in build_tiny(device="meta").parameters())
    with pytest.raises(ModelError, match="'abacus' is not a device"):
        build_tiny(device="abacus")


def test_the_default_device_is_that_of_torch(build_tiny):
    with torch.device("meta"):
        assert build_tiny().device.type == "meta"


def test_building_on_the_meta_device_computes_no_values(build_tiny, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda *_: pytest.fail("filled"))
    monkeypatch.setattr(torch.Tensor, "normal_", lambda *_: pytest.fail("filled"))
    build_tiny(device="meta")


def test_another_model_publishes_other_slots():
    class Body(Chain):
        """A network of somebody else."""

    tree = Model(
        base="other",
        facts={},
        slots={"body.linear": Slot("every linear layer", part="body", kind=nn.Linear)},
        body=Body(nn.Linear(2, 2), Chain(nn.Linear(2, 2), nn.SiLU())),
        head=Chain(nn.Linear(2, 2)),
    )
    paths = [seat.path for seat in tree.slot("body.linear")]
    assert paths == ["body.Linear_0", "body.Chain_1.Linear_0"]


class Doubles(Adapter):
    """Adds to every cross-attention what it says, through a layer of its own; has an encoder."""

    def build(self, model, source):
        self.encoder = nn.Linear(2, 2)

    def edits(self, model):
        return model.slot("unet.cross_attention").wrap(
            lambda inner, seat: Sum(inner, Chain(Lambda(torch.zeros_like))), name="twice"
        )


def test_worn_adapters_are_listed_in_order_and_ejected_together(model):
    a, b = Doubles(key="a"), Doubles(key="b")
    b.inject(model)
    a.inject(model)
    assert model.adapters == (a, b)
    mapping = dict(model.unet.named_modules())
    assert model.eject_all() is model
    assert model.adapters == ()
    assert not a.is_worn
    assert not b.is_worn
    assert len(dict(model.unet.named_modules())) < len(mapping)
    assert model.eject_all() is model


def test_ejecting_all_is_refused_if_one_adapter_cannot_be_ejected(model):
    a, b = Doubles(key="a"), Doubles(key="b")
    a.inject(model)
    b.inject(model)
    chain = model.slot("unet.cross_attention")[-1].chain
    chain._modules["stray"] = nn.Identity()
    with pytest.raises(PlanError, match="edited by hand"):
        model.eject_all()
    assert model.adapters == (a, b)
    del chain._modules["stray"]
    assert model.eject_all().adapters == ()


def test_encoders_of_worn_adapters_move_with_the_model(model):
    adapter = Doubles().inject(model)
    model.to(torch.float64)
    assert adapter.encoder.weight.dtype == torch.float64
    adapter.eject()
    model.to(torch.float32)
    assert adapter.encoder.weight.dtype == torch.float64


def test_copies_are_bare_and_keep_the_shared_component(model):
    arguments = {"seed": 0, "steps": 2, "output": "latents", "progress": False}
    expected = model.generate("a", **arguments)
    Doubles().inject(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.adapters == ()
        assert twin.denoise.predict.unet is twin.unet
        assert twin.unet is not model.unet
        assert twin.generate("a", **arguments).equal(expected)
