"""On an inpainting UNet, the side network reads the latents alone."""

import torch
from refiners_controlnet.adapter import ControlNet

from refiners_core.models.unet import UNetConfig
from refiners_core.testing import tiny_model

SIZES = {"channels": (8, 16), "layers": (1, 1), "depths": (1, 1), "heads": (2, 2)}


def outputs(in_channels: int, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    unet = UNetConfig(**SIZES, in_channels=in_channels, text_width=8, groups=4)  # pyright: ignore[reportArgumentType]
    torch.manual_seed(3)
    adapter = ControlNet(channels=(4, 8, 8)).inject(tiny_model(unet=unet))
    network = adapter.parts.layer("network", torch.nn.Module)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.linspace(-0.1, 0.1, weight.numel()).reshape(weight.shape))
    context = {
        **{"timestep": torch.tensor(7), "text": torch.ones(1, 5, 8)},
        **{adapter.features_key: torch.zeros(1, 8, 8, 8), adapter.scale_key: torch.tensor(1.0)},
    }
    return network(x, context=context)


def test_the_mask_and_picture_beside_the_latents_are_not_read() -> None:
    x = torch.randn(1, 9, 8, 8, generator=torch.Generator().manual_seed(1))
    plain, inpainting = outputs(4, x[:, :4]), outputs(9, x)
    assert all(torch.equal(a, b) for a, b in zip(plain, inpainting, strict=True))


def test_an_inpainting_model_generates_with_it() -> None:
    unet = UNetConfig(**SIZES, in_channels=9, text_width=8, groups=4)  # pyright: ignore[reportArgumentType]
    model = tiny_model(unet=unet)
    adapter = ControlNet(channels=(4, 8, 8)).inject(model)
    picture = torch.rand(3, 32, 32)
    made = model.generate(
        "a", image=picture, mask=torch.ones(32, 32), conditions={adapter: picture}, steps=2,
        seed=1, output="latents", progress=False,
    )  # fmt: skip
    assert torch.isfinite(made).all()
