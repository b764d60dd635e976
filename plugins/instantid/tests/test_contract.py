"""InstantID keeps the contract of adapters, alone and with a second one."""

import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from refiners_instantid.adapter import InstantId
from torch import Tensor

from refiners_core import Chain, Condition, Source
from refiners_core.errors import AdapterError, WeightsError
from refiners_core.models.image_prompt import ResamplerConfig
from refiners_core.models.sdxl import build as build_sdxl
from refiners_core.testing import LAWS, AdapterCase, tiny_model
from refiners_core.weights import read, write

SIZES = ResamplerConfig(width=64, heads=1, depth=1, inner=16, tokens=3)
POINTS = [[9, 10], [22, 10], [16, 16], [11, 22], [21, 22]]
FACE = torch.randn(512, generator=torch.Generator().manual_seed(1))
CONDITION = {"face": FACE, "keypoints": POINTS}


def make(**options: Any) -> InstantId:
    """Returns an adapter with the same random weights each time, also of zero convolutions."""
    torch.manual_seed(3)
    return InstantId(resampler=SIZES, channels=(4, 8, 8), name="instantid", **options)


def trained(model: Any, **options: Any) -> InstantId:
    adapter = make(**options).inject(model)
    with torch.no_grad():
        for weight in adapter.parameters():
            if not weight.any():
                weight.copy_(torch.randn(weight.shape) * 0.2)
    return adapter


def latents(model: Any, conditions: Mapping[InstantId, Any], **options: Any) -> Tensor:
    options = {"steps": 2, "seed": None if "latents" in options else 1, **options}
    options |= {"output": "latents", "progress": False}
    return model.generate("a cat", conditions=conditions, **options)


def targets() -> list[tuple[str, str]]:
    manifest = tomllib.loads((files("refiners_instantid") / "adapter.toml").read_text())
    variant, *_ = manifest["adapter"]["instantid"]["variant"]
    return [(target["slot"], target["stage"]) for target in variant["targets"]]


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_contract(law: Callable[[AdapterCase], None]):
    law(AdapterCase(make, condition=CONDITION, targets=targets()))


def test_each_half_has_a_scale_and_zero_skips_it():
    model = tiny_model()
    bare = latents(model, {})
    adapter = trained(model)
    both = latents(model, {adapter: CONDITION})
    ran: list[str] = []
    adapter.control.network.register_forward_hook(lambda *_: ran.append("control"))
    branch = next(iter(adapter.parts.branches))
    branch.attend.register_forward_hook(lambda *_: ran.append("image"))

    adapter.image_scale = 0
    control = latents(model, {adapter: CONDITION})
    assert set(ran) == {"control"}
    ran.clear()
    adapter.image_scale, adapter.control_scale = 0.8, 0.0
    image = latents(model, {adapter: CONDITION})
    assert set(ran) == {"image"}
    assert len({tuple(x.flatten().tolist()) for x in (bare, both, control, image)}) == 4
    adapter.image_scale = 0
    assert torch.equal(latents(model, {adapter: CONDITION}), bare)


def test_the_scale_of_the_condition_multiplies_both():
    model = tiny_model()
    adapter = trained(model, image_scale=0.5, control_scale=0.25)
    once = latents(model, {adapter: Condition(CONDITION, scale=2.0)})
    adapter.image_scale, adapter.control_scale = 1.0, 0.5
    assert torch.allclose(latents(model, {adapter: CONDITION}), once, atol=1e-6)


@pytest.mark.parametrize("name", ["image_scale", "control_scale"])
def test_a_scale_is_a_number(name: str):
    with pytest.raises(AdapterError, match=f"the {name} of instantid.* is a finite number"):
        make(**{name: float("nan")})
    model = tiny_model()
    adapter = make().inject(model)
    for value in ("strong", True):
        setattr(adapter, name, value)
        with pytest.raises(AdapterError, match=f"the {name} of instantid.* not {value!r}"):
            latents(model, {adapter: CONDITION})


def test_the_side_network_reads_the_face_instead_of_the_text():
    model = tiny_model()
    adapter = trained(model)
    seen: list[Tensor] = []
    first = adapter.control.network.down["0"].transformer_0.tokens.blocks["0"].cross_attention
    keys = first.attention.project.to_k
    keys.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    outputs: list[Tensor] = []
    adapter.control.network.register_forward_hook(lambda *args: outputs.append(args[-1][-1]))
    for prompt in ("a cat", "something else"):
        options = {"steps": 1, "seed": 1, "output": "latents", "progress": False}
        model.generate(prompt, conditions={adapter: CONDITION}, guidance=3.0, **options)
    with torch.no_grad():
        faces = torch.stack([torch.zeros(512), FACE])[:, None]  # without a prompt, and with it
        expected = adapter.parts.projection(faces)
    torch.testing.assert_close(seen[0], expected)
    assert torch.equal(outputs[0], outputs[1])


def test_there_is_one_face_per_picture():
    model = tiny_model()
    adapter = trained(model)
    faces = torch.stack([FACE, FACE.flip(0)])
    points = [POINTS, [[x + 2, y] for x, y in POINTS]]
    noise = torch.randn(2, 4, 8, 8)
    both = latents(model, {adapter: {"face": faces, "keypoints": points}}, count=2, latents=noise)
    for i in range(2):
        condition = {"face": faces[i], "keypoints": points[i]}
        alone = latents(model, {adapter: condition}, latents=noise[i : i + 1])
        assert torch.allclose(both[i], alone[0], atol=1e-5)


def test_a_mask_limits_the_effect_to_its_part():
    model = tiny_model()
    adapter = trained(model)
    left = torch.zeros(1, 1, 32, 32)
    left[..., :16] = 1
    added: dict[str, Tensor] = {}
    paths = [
        *(f"{seat.path}+control@{adapter.key}.When_1" for seat in model.slot("unet.skip.write")),
        *(f"{seat.path}+control@{adapter.key}.When_1" for seat in model.slot("unet.mid.output")),
        *(
            f"{seat.path}+image@{adapter.key}.image"
            for seat in model.slot("unet.cross_attention.attend")
        ),
    ]
    for path in paths:
        branch = model.layer(path, Chain)
        branch.register_forward_hook(lambda _, __, output, path=path: added.update({path: output}))
    latents(model, {adapter: Condition(CONDITION, mask=left)}, steps=1)
    assert added.keys() == set(paths)
    for path, value in added.items():
        if value.ndim == 3:
            side = round(value.shape[1] ** 0.5)
            value = value.transpose(1, 2).unflatten(2, (side, side))
        middle = value.shape[-1] // 2
        assert value[..., :middle].any(), path
        assert not value[..., middle:].any(), path


def test_complementary_masks_equal_no_mask():
    model = tiny_model()
    first, second = trained(model), trained(model)
    second.load_state_dict(first.state_dict())
    mask = torch.rand(1, 1, 32, 32).round()
    parts = {first: Condition(CONDITION, mask=mask), second: Condition(CONDITION, mask=1 - mask)}
    together = latents(model, parts)
    assert torch.allclose(together, latents(model, {first: CONDITION, second: None}), atol=1e-5)
    assert not torch.allclose(
        together, latents(model, {first: CONDITION, second: CONDITION}), atol=1e-3
    )


def test_it_is_saved_in_the_published_layout_and_read_again(tmp_path: Path):
    model = tiny_model()
    adapter = trained(model)
    before, known = latents(model, {adapter: CONDITION}), adapter.published()
    adapter.save(tmp_path / "mine")
    named = {"weights": "ip-adapter", "control": "ControlNetModel/diffusion_pytorch_model"}
    paths = {role: tmp_path / f"mine/{name}.safetensors" for role, name in named.items()}
    assert not read(paths["weights"]).keys() & read(paths["control"]).keys()
    adapter.eject()
    again = InstantId(weights=lambda _: Source(paths), name="instantid").inject(model)
    assert all(torch.equal(known[key], value) for key, value in again.published().items())
    assert torch.allclose(latents(model, {again: CONDITION}), before, atol=1e-5)
    assert not any(weight.requires_grad for weight in again.parameters())
    with pytest.raises(AdapterError, match="saved as two files"):
        adapter.save(tmp_path / "mine.safetensors")


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"conv_in.weight": (2, 2)}, "no 'image_proj.latents'"),
        ({"image_proj.proj.weight": (2, 2)}, "no 'image_proj.latents'"),
        ({"image_proj.proj_in.weight": (64, 1280)}, "reads 1280 features of a picture"),
        ({"image_proj.proj_out.weight": (2048, 64)}, "makes tokens of 2048 features"),
    ],
)
def test_another_file_is_refused_and_the_model_is_left_bare(
    tmp_path: Path, tensors: dict[str, tuple[int, ...]], words: str
):
    model = tiny_model()
    known = make().inject(model).eject().published()
    shapes = {key: value.shape for key, value in known.items()} if "proj_" in str(tensors) else {}
    write({k: torch.zeros(v) for k, v in {**shapes, **tensors}.items()}, tmp_path / "x.safetensors")
    files = {"weights": tmp_path / "x.safetensors", "control": tmp_path / "x.safetensors"}
    with pytest.raises(WeightsError, match=words):
        InstantId(weights=lambda _: Source(files)).inject(model)
    assert model.adapters == ()


def test_a_network_of_released_sizes_is_as_large_as_the_released_files():
    manifest = tomllib.loads((files("refiners_instantid") / "adapter.toml").read_text())
    weights = manifest["adapter"]["instantid"]["weights"]
    adapter = InstantId().inject(build_sdxl(device="meta"))
    control = adapter.control.published()
    parts = {key: value for key, value in adapter.published().items() if key not in control}
    assert (len(parts), len(control)) == (7 + 4 * 11 + 2 * 70, 844)
    assert parts["ip_adapter.121.to_k_ip.weight"].shape == (1280, 2048)  # the middle comes last
    whole = sum(tensor.numel() * 4 for tensor in parts.values())
    half = sum(tensor.numel() * 2 for tensor in control.values())
    assert (round(whole / 1e6, 1), round(half / 1e6)) == (1691.1, 2502)
    for file, size, count in (("ip-adapter", whole, len(parts)), ("controlnet", half, 844)):
        assert 0 < weights[file]["size"] - size < 500 * count  # names, shapes, places
