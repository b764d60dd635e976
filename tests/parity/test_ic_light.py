"""IC-Light from the Hub computes what the authors' code computes: offsets in a wider UNet."""

import copy
from pathlib import Path
from typing import Any

import pytest
import refiners
import torch
from safetensors.torch import save
from torch import Tensor

from refiners_core.models.formats.open import open_folder

from .tiny_hub import serving

NAMES = {"ic-light-fc": 1, "ic-light-fcon": 1, "ic-light-fbc": 2}
PROMPTS = ["a red circle on blue", "two cats"]
PICTURES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def offsets(unet: Any, pictures: int) -> dict[str, Tensor]:
    noise = torch.Generator().manual_seed(pictures)
    tensors = dict(unet.state_dict())
    first = tensors["conv_in.weight"]
    tensors["conv_in.weight"] = first.new_zeros(len(first), 4 + 4 * pictures, 3, 3)
    return {key: torch.randn(v.shape, generator=noise) * 0.03 for key, v in tensors.items()}


@torch.no_grad()
def widened(unet: Any, changes: dict[str, Tensor]) -> Any:
    """Returns a copy of a UNet with more input channels and an offset added to each tensor."""
    twin = copy.deepcopy(unet)
    first = twin.conv_in
    channels = changes["conv_in.weight"].shape[1]
    wide = torch.nn.Conv2d(channels, first.out_channels, 3, padding=1)
    wide.weight.zero_()
    wide.weight[:, :4] = first.weight
    wide.bias = first.bias
    twin.conv_in = wide
    twin.load_state_dict({key: v + changes[key] for key, v in twin.state_dict().items()})
    return twin


@pytest.fixture(scope="module")
def hub(sd15_folder: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    unet = sd15_folder[0].unet
    files = {
        ("lllyasviel/ic-light", f"iclight_sd15_{name.rpartition('-')[2]}.safetensors"): save(
            offsets(unet, pictures)
        )
        for name, pictures in NAMES.items()
    }
    with serving(tmp_path_factory.mktemp("light"), {"refiners_iclight": files}) as served:
        yield served


@pytest.fixture(scope="module")
def model(sd15_folder: Any) -> Any:
    return open_folder(sd15_folder[1])


@torch.no_grad()
def light_of(pipe: Any, pictures: int) -> Tensor:
    """Returns the latents that the authors' demo joins to those that are denoised."""
    levels = (PICTURES[:pictures] * 255).round()
    latents = pipe.vae.encode(levels / 127 - 1).latent_dist.mode() * pipe.vae.config.scaling_factor
    return torch.cat([*latents])[None]


@pytest.mark.parametrize(
    "name", ["ic-light-fc", pytest.param("ic-light-fbc", marks=pytest.mark.slow)]
)
@torch.no_grad()
def test_a_generation_equals_that_of_the_wider_unet(
    name: str, hub: Any, sd15_folder: Any, model: Any, differ: Any
):
    pipe, pictures = sd15_folder[0], NAMES[name]
    wide = widened(pipe.unet, offsets(pipe.unet, pictures))
    light = light_of(pipe, pictures)
    whole, forward = copy.copy(pipe), wide.forward

    def joined(sample: Tensor, *arguments: Any, **options: Any) -> Any:
        return forward(
            torch.cat([sample, light.expand(len(sample), -1, -1, -1)], 1), *arguments, **options
        )

    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    bare, wide.forward = pipe.unet, joined
    wide.config["in_channels"] = 4
    whole.unet = wide
    expected = whole(
        PROMPTS, negative_prompt=["dull", "x"], num_inference_steps=20, guidance_scale=5.0,
        latents=noise, output_type="latent",
    ).images  # fmt: skip
    whole.unet = bare
    rounded = (PICTURES * 255).round() / 255
    value: Any = rounded[0]
    if pictures == 2:
        value = {"foreground": rounded[0], "background": rounded[1]}
    options: dict[str, Any] = {"steps": 20, "guidance": 5.0, "latents": noise, "progress": False}
    options |= {"negative_prompt": ["dull", "x"], "output": "latents"}
    with refiners.load_adapter(name).on(model) as adapter:
        made = model.generate(PROMPTS, conditions={adapter: value}, **options)
        if name == "ic-light-fc":
            adapter.merge()
            merged = model.generate(PROMPTS, conditions={adapter: value}, **options)
            assert differ(merged, expected) <= 1e-4
    assert differ(made, expected) <= 1e-4


@torch.no_grad()
def test_the_network_equals_the_wider_unet_from_any_file(
    hub: Any, sd15_folder: Any, model: Any, differ: Any, tmp_path: Path
) -> None:
    pipe = sd15_folder[0]
    wide = widened(pipe.unet, offsets(pipe.unet, 1))
    x, text, light = torch.randn(2, 4, 16, 16), torch.randn(2, 7, 16), torch.randn(2, 4, 16, 16)
    expected = wide(torch.cat([x, light], 1), torch.tensor(321), text).sample
    context = {"timestep": torch.tensor(321), "text": text}
    with refiners.load_adapter("ic-light-fcon").on(model) as adapter:
        worn = {adapter.light_key: light, adapter.scale_key: torch.tensor(1.0)}
        made, plain = (model.unet(x, context=context | more) for more in (worn, {}))
        adapter.save(tmp_path / "mine.safetensors")
    assert differ(made, expected) <= 1e-5
    assert differ(plain, expected) > 1e-2
    with refiners.load_adapter("ic-light-fc", file=tmp_path / "mine.safetensors").on(model) as mine:
        worn = {mine.light_key: light, mine.scale_key: torch.tensor(1.0)}
        assert torch.equal(model.unet(x, context=context | worn), made)
