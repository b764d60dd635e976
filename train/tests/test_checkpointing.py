"""Checkpointed blocks give the gradients of plain ones, with less kept between the passes."""

import pytest
import torch
from refiners_controlnet.adapter import ControlNet
from refiners_lora.adapter import Lora

from refiners_core import Adapter
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.testing import tiny_model

LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def gradients(adapter: Adapter, model: LatentDiffusion) -> dict[str, torch.Tensor | None]:
    """Returns the gradients of an adapter over a frozen base, whose inputs need none."""
    context = {"timestep": torch.tensor([3, 5]), adapter.scale_key: torch.tensor(1.0)}
    if adapter.takes_condition:
        context[adapter.context_key("features")] = torch.ones(2, 8, 8, 8)
    context |= model.read(["a cat", "a dog"], {adapter.scale_key: torch.tensor(1.0)})
    model.zero_grad()
    model.at("unet")(LATENTS, context=context).square().mean().backward()
    return {name: weight.grad for name, weight in adapter.named_parameters()}


@pytest.mark.parametrize("kind", ["unet", "text encoder", "side network"])
def test_checkpointed_gradients_are_the_plain_ones(kind):
    torch.manual_seed(0)
    model = tiny_model()
    adapter = {
        "unet": lambda: Lora(rank=2),
        "text encoder": lambda: Lora(rank=2, where="text_encoder.linear"),
        "side network": lambda: ControlNet(channels=(4, 8, 8)),
    }[kind]().inject(model)
    model.requires_grad_(False)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.add_(torch.randn_like(weight) * 0.1).requires_grad_(True)
    plain = gradients(adapter, model)
    model.checkpoint_blocks()
    again = gradients(adapter, model)
    got = {name for name, gradient in plain.items() if gradient is not None}
    assert len(got) > 4
    assert {name for name, gradient in again.items() if gradient is not None} == got
    for name in got:
        torch.testing.assert_close(again[name], plain[name], rtol=1e-5, atol=1e-7)


def test_less_is_kept_between_the_passes():
    def kept(model: LatentDiffusion) -> int:
        sizes: list[int] = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            context = {"timestep": torch.tensor([3]), "text": torch.ones(1, 4, 8)}
            model.at("unet")(LATENTS[:1], context=context)
        return sum(sizes)

    model = tiny_model()
    plain = kept(model)
    model.checkpoint_blocks()
    assert kept(model) < plain / 2
