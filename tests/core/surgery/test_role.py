"""A place keeps its role when a library puts a layer of its own there."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from refiners_core import Adapter, Chain, Sum, select
from refiners_core.errors import SelectionError, TreeError
from refiners_core.layers import CrossAttention, SelfAttention


class Quantised(nn.Module):
    """A linear layer as quantisation libraries write it: no subclass, and no sizes of its own."""

    def __init__(self, layer):
        super().__init__()
        self.scale = nn.Parameter(layer.weight.detach().abs().amax().double() / 127)
        weight = (layer.weight.detach() / self.scale.float()).round().to(torch.int8)
        self.register_buffer("packed", weight)
        self.register_buffer("offset", None if layer.bias is None else layer.bias.detach())

    def forward(self, x):
        return F.linear(x, self.packed.to(x.dtype) * self.scale.to(x.dtype), self.offset)


class Fused(nn.Module):
    """An attention in one piece."""

    def forward(self, x):
        return x * 0.5


def by_item(chain, name, layer):
    chain[name] = layer


def by_mapping(chain, name, layer):
    chain._modules[name] = layer


WAYS = {"item": by_item, "setattr": setattr, "mapping": by_mapping, "replace": Chain.replace}


def quantise(model, way, part="unet"):
    for seat in select(model).of(nn.Linear).where(lambda seat: seat.path.startswith(f"{part}.")):
        WAYS[way](seat.chain, seat.name, Quantised(seat.layer))


@pytest.mark.parametrize("way", WAYS)
def test_quantised_layers_stay_in_their_slot(model, way):
    before = [seat.path for seat in model.slot("unet.linear")]
    attention = len(model.slot("unet.linear").within(SelfAttention, CrossAttention))
    facts = [dict(seat.facts) for seat in model.slot("unet.linear")]
    quantise(model, way)
    seats = model.slot("unet.linear")
    assert [seat.path for seat in seats] == before
    assert {seat.kind for seat in seats} == {Quantised}
    assert {seat.role for seat in seats} == {nn.Linear}
    assert [seat.facts["in_features"] for seat in seats] == [it["in_features"] for it in facts]
    assert len(seats.within(SelfAttention, CrossAttention)) == attention
    assert len(select(model).of(nn.Linear)) == len(model.slot("text_encoder.linear"))
    assert model.slot("unet.linear.3")[0].path == before[3]
    assert model.unet.dtype == torch.float32  # not that of the scales


def test_facts_of_the_layer_that_is_there_come_first(model):
    seat = model.slot("unet.conv_in")[0]
    assert seat.facts["in_channels"] == 4
    model.unet.conv_in = nn.Conv2d(9, 8, 3, padding=1)
    assert model.slot("unet.conv_in")[0].facts["in_channels"] == 9
    model.unet.conv_in = nn.Identity()
    assert model.slot("unet.conv_in")[0].facts["in_channels"] == 4
    assert model.slot("unet.conv_in")[0].is_a(nn.Conv2d)
    assert not model.slot("unet.conv_in")[0].is_a(nn.Linear)


def test_copies_and_pickles_keep_roles(model):
    quantise(model, "item")
    expected = [seat.path for seat in model.slot("unet.linear")]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.copy()):
        assert [seat.path for seat in twin.slot("unet.linear")] == expected


def test_a_replaced_chain_is_one_place(model):
    count, linears = len(model.slot("unet.self_attention")), len(model.slot("unet.linear"))
    seat = model.slot("unet.self_attention")[0]
    seat.chain[seat.name] = Fused()
    assert len(model.slot("unet.self_attention")) == count
    assert model.slot("unet.self_attention")[0].kind is Fused
    assert len(model.slot("unet.linear")) == linears - 4


def test_what_is_inside_of_a_stand_in_is_not_a_place(model):
    paths = [seat.path for seat in model.slot("unet.linear")]
    seat = model.slot("unet.linear")[2]
    width = seat.facts["out_features"]
    seat.chain[seat.name] = Chain(Quantised(seat.layer), nn.Linear(width, width))
    assert [seat.path for seat in model.slot("unet.linear")] == paths


def test_a_layer_that_is_popped_takes_its_role_with_it(model):
    seat = model.slot("unet.linear")[0]
    chain, index = seat.chain, list(seat.chain._modules).index(seat.name)
    chain.pop(seat.name)
    chain.insert(index, nn.Identity(), seat.name)
    assert seat.path not in [other.path for other in model.slot("unet.linear")]


def test_a_chain_sets_a_layer_by_position_or_path():
    chain = Chain(nn.Linear(2, 2), inner=Chain(act=nn.SiLU()))
    chain[0] = nn.Identity()
    chain["inner.act"] = nn.ReLU()
    assert isinstance(chain[0], nn.Identity)
    assert isinstance(chain["inner.act"], nn.ReLU)
    with pytest.raises(TreeError, match="no child named 'missing'"):
        chain["missing"] = nn.ReLU()


def test_a_place_of_a_slot_is_named_by_its_position(model):
    ups = model.slot("unet.up")
    assert [seat.path for seat in model.slot("unet.up.1")] == [ups[1].path]
    message = r"tiny has 2 places of 'unet.up', so no 'unet.up.2'. They count from 0, up to unet.up"
    with pytest.raises(SelectionError, match=message):
        model.slot("unet.up.2")
    with pytest.raises(SelectionError, match=r"no slot .unet\.up\.x."):
        model.slot("unet.up.x")


class Beside(Adapter):
    """Adds a linear layer beside each linear layer."""

    def edits(self, model):
        def added(inner, seat):
            sizes = seat.facts["in_features"], seat.facts["out_features"]
            return Sum(inner, self.layer(seat, lambda: nn.Linear(*sizes)))

        return model.slot("unet.linear").wrap(added)


@torch.no_grad()
def test_an_adapter_acts_beside_quantised_layers(model):
    options = {"seed": 0, "steps": 1, "output": "latents", "progress": False}
    quantise(model, "item")
    quantised = model.generate("a", **options)
    adapter = Beside(key="beside").inject(model)
    worn = model.generate("a", **options)
    assert {weight.dtype for weight in adapter.parameters()} == {torch.float32}
    assert not worn.equal(quantised)
    for seat in model.slot("unet.linear"):
        added = adapter.own_layers[seat.path.replace(".", "/")]
        seat.layer.register_forward_hook(lambda _, inputs, y, added=added: y + added(inputs[0]))
    adapter.eject()
    assert model.generate("a", **options).equal(worn)
