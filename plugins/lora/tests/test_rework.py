"""Plain LoRAs made of models and other LoRAs mean what the formulas of their methods say."""

import json

import pytest
import torch
from refiners_lora.adapter import Lora
from refiners_lora.rework import convert, extract, merge, resize
from torch import nn

from refiners_core import Source
from refiners_core.errors import AdapterError
from refiners_core.testing import tiny_model, tiny_sdxl
from refiners_core.weights import TensorFile, write

CONV = "down_blocks.0.downsamplers.0.conv"
QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
KEY = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
TEXT = "text_model.encoder.layers.0.mlp.fc1"
LAYERS = {
    ("unet", CONV): (8, 8, 3, 3),
    ("unet", QUERY): (16, 16),
    ("unet", KEY): (16, 8),
    ("text_encoder", TEXT): (16, 8),
}
PATHS = {
    CONV: "unet.down.0.downsample.conv",
    QUERY: "unet.mid.transformer.tokens.blocks.0.self_attention.attention.project.to_q",
}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def outline():
    return tiny_model().to("meta")


def flat(part, name):
    return {"unet": "lora_unet_", "text_encoder": "lora_te_"}[part] + name.replace(".", "_")


def plain(path, rank, alpha, seed=0, layout="kohya", layers=LAYERS):
    """Writes a plain LoRA, and returns the change of each layer."""
    generator = torch.Generator().manual_seed(seed)
    tensors, changes = {}, {}
    for (part, name), (out, inner, *kernel) in layers.items():
        down = torch.randn(rank, inner, *kernel, generator=generator) * 0.4
        up = torch.randn(out, rank, *(1 for _ in kernel), generator=generator) * 0.4
        if layout == "kohya":
            key = flat(part, name)
            tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
            tensors[f"{key}.alpha"] = torch.tensor(alpha)
        else:
            key = f"{part}.{name}"
            tensors |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
        strength = alpha / rank if layout == "kohya" else 1.0
        changes[name] = up.flatten(1) @ down.flatten(1) * strength
    write(tensors, path)
    return changes


@torch.no_grad()
def changes_in(path, names=LAYERS):
    """Returns the change of each layer that a file in diffusers' layout has."""
    with TensorFile(path) as file:
        config = json.loads(file.metadata()["lora_adapter_metadata"])
        changes = {}
        for part, name in names:
            down = file.tensor(f"{part}.{name}.lora_A.weight").float()
            up = file.tensor(f"{part}.{name}.lora_B.weight").float()
            ending = f"^{name}" if part == "unet" else name.removeprefix("text_model.")
            patterns = config[f"{part}.alpha_pattern"]
            alpha = patterns.get(ending, config[f"{part}.lora_alpha"])
            changes[name] = up.flatten(1) @ down.flatten(1) * (alpha / len(down))
    return changes


def close(ours, theirs, bar=1e-6):
    return bool((ours - theirs).norm() <= bar * theirs.norm())


@pytest.fixture
def pair(tmp_path):
    """Two files of other dialects, ranks and alphas, and what each changes."""
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    fewer = {key: shape for key, shape in LAYERS.items() if key[1] != KEY}
    return (first, plain(first, 3, 1.5)), (second, plain(second, 2, 2.0, 1, "peft", fewer))


def summed(pair, strengths):
    (_, first), (_, second) = pair
    zeros = {name: torch.zeros_like(change) for name, change in first.items()}
    theirs = zeros | second
    return {name: strengths[0] * first[name] + strengths[1] * theirs[name] for name in first}


def test_concat_is_the_weighted_sum_of_the_changes(pair, outline, tmp_path):
    terms = {pair[0][0]: 0.8, pair[1][0]: -0.5}
    merged = merge(terms, outline)
    assert merged.ranks == (3, 5)
    assert merged.groups[-1].total == 0
    merged.save(tmp_path / "both.safetensors")
    expected = summed(pair, (0.8, -0.5))
    for name, change in changes_in(tmp_path / "both.safetensors").items():
        assert close(change, expected[name])


def test_a_file_of_strength_0_is_left_out(pair, outline, tmp_path):
    merged = merge({pair[0][0]: 0.8, pair[1][0]: 0}, outline)
    assert merged.ranks == (3, 3)
    merged.save(tmp_path / "one.safetensors")
    assert close(changes_in(tmp_path / "one.safetensors")[CONV], 0.8 * pair[0][1][CONV])
    with pytest.raises(AdapterError, match="nothing to merge"):
        merge({pair[0][0]: 0}, outline)


@torch.no_grad()
def test_svd_is_the_best_approximation_of_the_sum(pair, outline, tmp_path):
    merged = merge({pair[0][0]: 0.8, pair[1][0]: 0.5}, outline, "svd", rank=2)
    merged.save(tmp_path / "both.safetensors")
    for name, change in changes_in(tmp_path / "both.safetensors").items():
        exact = summed(pair, (0.8, 0.5))[name]
        left, values, right = torch.linalg.svd(exact.double(), full_matrices=False)
        best = (left[:, :2] * values[:2] @ right[:2]).float()
        assert close(change, best, 1e-5)
    exact = torch.cat([c.flatten() for c in summed(pair, (0.8, 0.5)).values()])
    ours = torch.cat([c.flatten() for c in changes_in(tmp_path / "both.safetensors").values()])
    assert merged.groups[-1].total == pytest.approx(float((ours - exact).norm() / exact.norm()))
    assert merged.groups[-1].total > 0.1


def test_dare_drops_and_rescales_by_the_seed(pair, outline, tmp_path):
    arguments = {"rank": 16, "density": 0.4, "seed": 5}
    merged = merge({pair[0][0]: 0.8, pair[1][0]: 0.5}, outline, "dare", **arguments)
    merged.save(tmp_path / "both.safetensors")
    generator = torch.Generator().manual_seed(5)
    changes = changes_in(tmp_path / "both.safetensors")
    for path, (target, _) in merged.layers.items():
        name = target.published.name
        expected = torch.zeros(target.matrix_shape)
        for (_, change), strength in zip(pair, (0.8, 0.5), strict=True):
            if name in change:
                keep = torch.rand(expected.shape, generator=generator) < 0.4
                expected += torch.where(keep, change[name] / 0.4, 0.0) * strength
        assert close(changes[name], expected, 1e-5), path
    other = merge({pair[0][0]: 0.8, pair[1][0]: 0.5}, outline, "dare", rank=16, seed=6)
    assert other.groups[-1].total < 1e-5
    assert not other.layers[path][0].matrix().equal(target.matrix())


@torch.no_grad()
@pytest.mark.parametrize("make", [tiny_model, tiny_sdxl])
def test_a_known_difference_is_extracted(make, tmp_path):
    base, tuned = make(), make()
    places = {"conv": "unet.conv_in", "text": "text_encoder"}
    layers = [layer for layer in tuned.unet.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    layers += [each for each in tuned.text_encoder.modules() if isinstance(each, nn.Linear)]
    for i, layer in enumerate(layers[::3]):
        generator = torch.Generator().manual_seed(i)
        flat_weight = layer.weight.flatten(1)
        up = torch.randn(len(flat_weight), 2, generator=generator)
        down = torch.randn(2, flat_weight.shape[1], generator=generator)
        layer.weight += (up @ down).view_as(layer.weight) * 0.1
    extracted = extract(base, tuned, 2)
    assert len(extracted.layers) == len(layers[::3])
    assert not extracted.dropped
    assert extracted.groups[-1].worst <= 1e-5
    extracted.save(tmp_path / "style.safetensors")
    Lora(weights=lambda _: Source({"weights": tmp_path / "style.safetensors"})).inject(base).merge()
    merged, wanted = base.state_dict(), tuned.state_dict()
    assert places
    for name, weight in wanted.items():
        ours = merged.get(name, merged.get(name.replace(".weight", ".base.weight")))
        assert ours is None or close(ours, weight, 1e-5), name


@torch.no_grad()
def test_what_an_extraction_cannot_carry_is_listed(model, tmp_path):
    tuned = tiny_model()
    tuned.layer(PATHS[CONV]).weight.mul_(1.1)
    tuned.layer(PATHS[CONV]).bias.add_(1)
    extracted = extract(model, tuned, 4, clamp=0.9)
    assert [dropped.layer for dropped in extracted.dropped] == [PATHS[CONV]]
    ((target, factors),) = extracted.layers.values()
    magnitudes = torch.cat([factors.down.flatten(), factors.up.flatten()]).abs()
    assert 0.05 < float((magnitudes == magnitudes.max()).float().mean()) < 0.2
    assert not target.matrix().allclose(factors.matrix())
    with pytest.raises(AdapterError, match="same weights"):
        extract(model, tiny_model(), 4)
    with pytest.raises(AdapterError, match="differ in structure"):
        extract(model, tiny_sdxl(), 4)


@torch.no_grad()
def test_resizing_keeps_a_rank_or_a_share_of_the_squares(pair, outline):
    for target, factors in resize(pair[0][0], outline, energy=0.9).layers.values():
        squares = torch.linalg.svdvals(target.matrix()).square()
        shares = squares.cumsum(0) / squares.sum()
        assert shares[factors.rank - 1] >= 0.9
        assert factors.rank == 1 or shares[factors.rank - 2] < 0.9
    assert resize(pair[0][0], outline, 1, energy=0.9).ranks == (1, 1)
    assert resize(pair[0][0], outline, 64).groups[-1].worst <= 1e-6


def test_the_file_names_its_sources_and_its_bytes_are_reproducible(pair, outline, tmp_path):
    first = merge({pair[0][0]: 0.8, pair[1][0]: 0.5}, outline, "ties")
    path = tmp_path / "both.safetensors"
    first.save(path, title="Both")
    data = path.read_bytes()
    with pytest.raises(AdapterError, match=r"exists, and nothing was written.*force=True"):
        first.save(path)
    merge({pair[0][0]: 0.8, pair[1][0]: 0.5}, outline, "ties").save(path, title="Both", force=True)
    assert path.read_bytes() == data
    with TensorFile(path) as file:
        metadata = file.metadata()
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert metadata["modelspec.title"] == "Both"
    assert metadata["modelspec.merged_from"] == "first.safetensors, second.safetensors"
    assert metadata["refiners.command"] == "lora merge --method ties --rank 3 --density 0.5"
    sources = json.loads(metadata["refiners.sources"])
    assert [source["strength"] for source in sources] == [0.8, 0.5]
    assert all(len(source["sha256"]) == 64 for source in sources)
    assert not any("date" in key for key in metadata)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, m: merge({f: 1.0}, m, "mean"), "'mean' is not a way to merge"),
        (lambda f, m: merge({f: 1.0}, m, rank=4), "does not take rank=4"),
        (lambda f, m: merge({f: 1.0}, m, "ties", density=0), "density=0 is not above 0"),
        (lambda f, m: merge({f: 1.0}, m, "svd", rank=0), "rank 0"),
        (lambda f, m: resize(f, m), "a new size is missing"),
        (lambda f, m: resize(f, m, energy=1.5), "energy=1.5 is not above 0"),
        (lambda f, m: convert(f, m).save(f.with_name("x"), "onnx"), "'onnx' is not a layout"),
        (lambda f, m: extract(m, m, 4), "no weights as numbers"),
    ],
)
def test_wrong_use_is_refused(call, message, pair, outline):
    with pytest.raises(AdapterError, match=message):
        call(pair[0][0], outline)
