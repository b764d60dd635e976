"""Single layers compute what the formulas of their methods say."""

import pytest
import torch
from refiners_lora.adapter import Lora
from refiners_lora.method.change import operation
from torch import nn

from refiners_core import Chain, Source, select
from refiners_core.testing import tiny_model
from refiners_core.weights import write

NAME = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
PATH = "unet.mid.transformer.tokens.blocks.0.self_attention.attention.project.to_q"


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def layer_of(model, tensors, folder, metadata=None):
    """Returns the layer that wears the change, the key of its scale, and the adapter."""
    path = folder / "style.safetensors"
    write({f"{NAME}.{role}": part for role, part in tensors.items()}, path, metadata)
    adapter = Lora(weights=lambda _: Source({"weights": path})).inject(model)
    chain, _, name = PATH.rpartition(".")
    return model.layer(chain).at(name), adapter


@torch.no_grad()
def weight_of(model, tensors, folder, strength=1.0, metadata=None):
    """Returns the weight that the layer applies at a strength."""
    layer, adapter = layer_of(model, tensors, folder, metadata)
    context = {adapter.scale_key: torch.tensor(strength)}
    columns = layer(torch.eye(16)[None], context=context)[0]
    adapter.eject()
    return columns.T


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.4


def base(model):
    return model.layer(PATH).weight.detach()


def close(a, b):
    return bool((a - b).norm() <= 1e-5 * b.norm())


@pytest.mark.parametrize(
    ("alpha", "dim", "strength"),
    [(None, None, 1.0), (32.0, None, 1.0), (1.0, None, 1.0), (32.0, 32, 1.0), (1.0, 32, 1 / 32)],
)
def test_a_lokr_of_whole_factors_never_divides_alpha_by_one(model, tmp_path, alpha, dim, strength):
    tensors = {"lokr_w1": random(4, 2), "lokr_w2": random(4, 8, seed=1)}
    metadata = None if dim is None else {"ss_network_dim": str(dim)}
    more = {} if alpha is None else {"alpha": torch.tensor(alpha)}
    weight = weight_of(model, tensors | more, tmp_path, metadata=metadata)
    product = torch.kron(tensors["lokr_w1"], tensors["lokr_w2"])
    assert close(weight, base(model) + strength * product)


def test_a_lokr_of_one_product_divides_alpha_by_its_rank(model, tmp_path):
    tensors = {
        "lokr_w1": random(4, 2),
        "lokr_w2_a": random(4, 3, seed=1),
        "lokr_w2_b": random(3, 8, seed=2),
        "alpha": torch.tensor(2.0),
    }
    weight = weight_of(model, tensors, tmp_path, metadata={"ss_network_dim": "32"})
    product = torch.kron(tensors["lokr_w1"], tensors["lokr_w2_a"] @ tensors["lokr_w2_b"])
    assert close(weight, base(model) + 2 / 3 * product)


@pytest.mark.parametrize("strength", [1.0, 0.5, -0.3])
def test_an_oft_is_proportional_to_its_strength(model, tmp_path, strength):
    blocks, rescale = random(4, 4, 4), 1 + random(16, 1, seed=1)
    skew = blocks - blocks.transpose(1, 2)
    eye = torch.eye(4)
    rotations = [(eye + q) @ torch.linalg.inv(eye - q) for q in skew]
    rotated = rescale * torch.block_diag(*[r.T for r in rotations]) @ base(model)
    tensors = {"oft_blocks": blocks, "rescale": rescale}
    weight = weight_of(model, tensors, tmp_path, strength)
    assert close(weight, base(model) + strength * (rotated - base(model)))
    assert all(close(r @ r.T, eye) for r in rotations)


def test_the_constraint_limits_the_norm_over_all_blocks(model, tmp_path):
    blocks = random(4, 4, 4)
    skew = blocks - blocks.transpose(1, 2)
    for limit, is_bound in ((0.02, True), (1.0, False), (0.0, False)):
        share = min(1.0, 16 * limit / float(skew.norm())) if limit else 1.0
        assert (share < 1) == is_bound
        eye = torch.eye(4)
        rotations = [(eye + share * q) @ torch.linalg.inv(eye - share * q) for q in skew]
        expected = torch.block_diag(*[r.T for r in rotations]) @ base(model)
        tensors = {"oft_blocks": blocks, "alpha": torch.tensor(limit)}
        assert close(weight_of(model, tensors, tmp_path), expected)


def test_stored_rotations_are_taken_as_they_are(model, tmp_path):
    rotations = random(4, 4, 4)
    expected = torch.block_diag(*[r.T for r in rotations]) @ base(model)
    assert close(weight_of(model, {"oft_diag": rotations}, tmp_path), expected)


@pytest.mark.parametrize("strength", [1.0, 0.4])
@pytest.mark.parametrize("shape", [(16,), (16, 1), (1, 16)])
def test_magnitudes_are_on_the_axis_of_their_stored_shape(model, tmp_path, shape, strength):
    down, up, size = random(2, 16), random(16, 2, seed=1), 1 + random(*shape, seed=2)
    changed = base(model) + strength * 0.5 * up @ down
    axis = 0 if shape == (1, 16) else 1
    expected = (
        size.reshape(shape if len(shape) == 2 else (16, 1))
        * changed
        / changed.norm(dim=axis, keepdim=True)
    )
    tensors = {"lora_down.weight": down, "lora_up.weight": up, "dora_scale": size}
    weight = weight_of(model, tensors | {"alpha": torch.tensor(1.0)}, tmp_path, strength)
    assert close(weight, expected)


def test_a_trained_scalar_multiplies_the_change(model, tmp_path):
    down, up = random(2, 16), random(16, 2, seed=1)
    tensors = {"lora_down.weight": down, "lora_up.weight": up, "scalar": torch.tensor(0.3)}
    assert close(weight_of(model, tensors, tmp_path), base(model) + 0.3 * up @ down)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
def test_a_convolution_keeps_its_padding(mode):
    layer = nn.Conv2d(4, 8, 3, padding=1, stride=2, padding_mode=mode, bias=False)
    tree = Chain(layer)
    (seat,) = select(tree)
    x = torch.randn(1, 4, 9, 9)
    assert torch.equal(operation(seat)(x, layer.weight), layer(x))
