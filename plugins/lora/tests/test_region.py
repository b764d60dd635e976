"""A LoRA acts within a region, at places, and over time, whatever layers it changes."""

import pytest
import torch
from refiners_lora.adapter import Lora
from torch.nn.functional import adaptive_avg_pool2d

from refiners_core import Condition, Source
from refiners_core.testing import tiny_model
from refiners_core.weights import write

UNET = {
    "lora_unet_conv_in": (4, 8, 3, 3),
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q": (16, 16),
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k": (8, 16),
    "lora_unet_time_embedding_linear_1": (8, 32),
}
TEXT = {"lora_te_text_model_encoder_layers_0_mlp_fc1": (8, 16)}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def lora(folder, layers):
    tensors = {}
    for name, (inputs, outputs, *kernel) in layers.items():
        generator = torch.Generator().manual_seed(len(name))
        ones = [1] * len(kernel)
        down = torch.randn(2, inputs, *kernel, generator=generator) * 0.5
        tensors[f"{name}.lora_down.weight"] = down
        tensors[f"{name}.lora_up.weight"] = torch.randn(outputs, 2, *ones, generator=generator)
    write(tensors, folder / "style.safetensors")
    return Lora(weights=lambda _: Source({"weights": folder / "style.safetensors"}), name="style")


def latents(model, conditions, **options):
    arguments = {"steps": 2, "seed": 1, "output": "latents", "progress": False, **options}
    return model.generate("a", conditions=conditions, **arguments)


def mask(left=1.0, right=0.0, size=(16, 16)):
    height, width = size
    columns = torch.full((1, 1, height, width), float(right))
    columns[..., : width // 2] = left
    return columns


def test_a_mask_of_ones_is_none_and_one_of_zeros_leaves_it_out(model, tmp_path):
    with lora(tmp_path, UNET).on(model) as adapter:
        whole = latents(model, {adapter: Condition(scale=0.7)})
        bare = latents(model, {adapter: None})
        ones, zeros, half = (
            latents(model, {adapter: Condition(scale=0.7, mask=mask(left, right))})
            for left, right in ((1, 1), (0, 0), (1, 0))
        )
    assert torch.equal(ones, whole)
    assert torch.equal(zeros, bare)
    assert not torch.equal(half, whole)
    assert not torch.equal(half, bare)


@torch.no_grad()
def test_each_layer_takes_the_mask_at_its_own_grid(model, tmp_path):
    area = mask(1.0, 0.25, (8, 8))
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    values = {"timestep": torch.tensor(9), "text": torch.ones(2, 3, 8)}
    with lora(tmp_path, UNET).on(model) as adapter:
        context = {
            adapter.scale_key: torch.tensor(0.5),
            f"{adapter.key}.mask": area.expand(2, -1, -1, -1),
        }
        worn = model.unet(x, context={**values, **context})
    changes = dict(adapter.own_layers.named_children())
    hooks = []
    for path, change in changes.items():

        def added(_, inputs, output, change=change, path=path):
            update = change(*inputs) * 0.5
            if path.endswith("conv_in"):
                update = update * adaptive_avg_pool2d(area, update.shape[-2:])
            elif path.endswith("self_attention/attention/project/to_q"):
                side = int(update.shape[1] ** 0.5)
                update = update * adaptive_avg_pool2d(area, side).flatten(2).transpose(1, 2)
            else:  # texts and times have no grid: the share of the picture
                update = update * area.mean()
            return output + update

        hooks.append(model.layer(path.replace("/", ".")).register_forward_hook(added))
    try:
        expected = model.unet(x, context=values)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(changes) == len(UNET)
    assert float((worn - expected).norm() / expected.norm()) <= 1e-6


def test_a_mask_does_not_reach_the_text_encoder(model, tmp_path):
    with lora(tmp_path, TEXT).on(model) as adapter:
        whole = latents(model, {adapter: Condition()})
        assert torch.equal(latents(model, {adapter: Condition(mask=mask())}), whole)


@pytest.mark.parametrize("size", [(1, 1), (23, 7), (16, 40)])
def test_a_mask_may_have_any_size(model, tmp_path, size):
    with lora(tmp_path, UNET).on(model) as adapter:
        area = mask(1.0, 1.0, size)
        masked = latents(model, {adapter: Condition(mask=area)}, count=3)
        assert torch.equal(masked, latents(model, {adapter: Condition()}, count=3))


@pytest.mark.parametrize(
    "scale", [{"unet": 0.7}, {"unet.mid": 0.7}, {"unet.conv_in": 0.7}, {"text_encoder": 0.7}]
)
def test_places_include_convolutions_and_text_encoders(model, tmp_path, scale):
    (place,) = scale
    with lora(tmp_path, UNET | TEXT).on(model) as adapter:
        placed = latents(model, {adapter: Condition(scale=scale)})
        bare = latents(model, {adapter: None})
    inside = {
        "unet": UNET,
        "unet.mid": {name: size for name, size in UNET.items() if "mid" in name},
        "unet.conv_in": {"lora_unet_conv_in": UNET["lora_unet_conv_in"]},
        "text_encoder": TEXT,
    }[place]
    with lora(tmp_path, inside).on(model) as part:
        alone = latents(model, {part: Condition(scale=0.7)})
    assert torch.equal(placed, alone)
    assert not torch.equal(placed, bare)


def test_a_schedule_ends_where_it_is_zero(model, tmp_path):
    with lora(tmp_path, UNET).on(model) as adapter:
        falling = Condition(scale=lambda progress: 0.7 if progress < 0.5 else 0.0)
        half = Condition(scale=0.7, end=0.5)
        assert torch.equal(latents(model, {adapter: falling}), latents(model, {adapter: half}))
