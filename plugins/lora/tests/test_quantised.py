"""A LoRA acts beside layers that a quantisation library put into the places of a model."""

import pytest
import torch
from refiners_lora.adapter import Lora
from torch import Tensor, nn
from torch.nn import functional as F

from refiners_core import Source, select
from refiners_core.errors import AdapterError
from refiners_core.testing import tiny_model
from refiners_core.weights import write

NAMES = {
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q": 16,
    "lora_unet_conv_in": (4, 8),
    "lora_te_text_model_encoder_layers_0_mlp_fc1": (8, 16),
}


class Packed(nn.Module):
    """A quantised linear layer or convolution, which has neither the class nor the sizes."""

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.step = layer.weight.detach().abs().amax() / 127
        self.register_buffer("packed", (layer.weight.detach() / self.step).round().to(torch.int8))
        self.offset = layer.bias
        self.options = () if isinstance(layer, nn.Linear) else (layer.stride, layer.padding)

    def forward(self, x: Tensor) -> Tensor:
        function = F.conv2d if self.options else F.linear
        return function(x, self.packed.to(x.dtype) * self.step, self.offset, *self.options)


def packed(model):
    for seat in [*select(model).of(nn.Linear), *select(model).of(nn.Conv2d)]:
        if seat.path.startswith(("unet.", "text_encoder.")):
            seat.chain[seat.name] = Packed(seat.layer)
    return model


@torch.no_grad()
def outputs(model, scales):
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    context = {"timestep": torch.tensor(99), "text": torch.ones(1, 3, 8), **scales}
    return model.unet(x, context=context), model.text_encoder(
        torch.tensor([[5, 6]]), context=scales
    )


@pytest.fixture
def file(tmp_path):
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, sizes in NAMES.items():
        inputs, outputs = (sizes, sizes) if isinstance(sizes, int) else sizes
        kernel = (3, 3) if name.endswith("conv_in") else ()
        ends = (2, inputs, *kernel), (outputs, 2, *(1 for _ in kernel))
        for half, shape in zip(("down", "up"), ends, strict=True):
            tensors[f"{name}.lora_{half}.weight"] = torch.randn(shape, generator=generator) / 2
    write(tensors, tmp_path / "style.safetensors")
    return tmp_path / "style.safetensors"


def test_a_file_is_added_beside_quantised_layers(file):
    model = packed(tiny_model())
    bare = outputs(model, {})
    lora = Lora(weights=lambda _: Source({"weights": file})).inject(model)
    worn = outputs(model, {lora.scale_key: torch.tensor(0.6)})
    assert all(a.equal(b) for a, b in zip(outputs(model, {}), bare, strict=True))
    changes = dict(lora.own_layers.named_children())
    lora.eject()
    assert len(changes) == len(NAMES)
    scale = torch.tensor(0.6)
    for path, change in changes.items():
        layer = model.layer(path.replace("/", "."))
        layer.register_forward_hook(lambda _, x, y, c=change: y + c(x[0], scale))
    for ours, theirs, plain in zip(worn, outputs(model, {}), bare, strict=True):
        assert ours.equal(theirs)
        assert not ours.equal(plain)


def test_an_untrained_lora_takes_the_sizes_of_what_was_built(file):
    model = packed(tiny_model())
    lora = Lora(rank=2, where=lambda model: [*model.slot("unet.linear"), *model.slot("unet.conv")])
    lora.inject(model)
    plain = Lora(rank=2, where=lambda model: [*model.slot("unet.linear"), *model.slot("unet.conv")])
    plain.inject(tiny_model())
    shapes = [
        {name: weight.shape for name, weight in adapter.own_layers.named_parameters()}
        for adapter in (lora, plain)
    ]
    assert shapes[0] == shapes[1]
    assert {weight.dtype for weight in lora.parameters()} == {torch.float32}


def test_a_method_that_reads_the_weight_is_refused_beside_a_quantised_layer(tmp_path):
    name = next(iter(NAMES))
    tensors = {f"{name}.oft_blocks": torch.ones(4, 4, 4)}
    write(tensors, tmp_path / "style.safetensors")
    model = packed(tiny_model())
    lora = Lora(weights=lambda _: Source({"weights": tmp_path / "style.safetensors"}))
    with pytest.raises(AdapterError, match=r"an OFT reads the weight of .* a Packed does not keep"):
        lora.inject(model)
    assert model.adapters == ()
