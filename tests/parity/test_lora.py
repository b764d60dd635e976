"""LoRA files of every dialect, loaded through the registry, compute what diffusers and PEFT make
of them."""

from contextlib import contextmanager

import pytest
import refiners
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from refiners_core import Condition

from .lora_dialect import ALL, ATTENTION, LINEAR, factors_of, kohya, ldm, old, older, peft
from .lora_network import networks
from .pipelines import sd15_pipeline, sdxl_pipeline


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def pair(request, tmp_path_factory):
    """A tiny pipeline of diffusers, and ours, read from the folder that theirs was saved to."""
    pipe = {"sd15": sd15_pipeline, "sdxl": sdxl_pipeline}[request.param]()
    folder = tmp_path_factory.mktemp(request.param)
    pipe.save_pretrained(folder)
    return pipe, refiners.load_model(folder)


@contextmanager
def worn_by_both(pair, path, scale=1.0):
    pipe, model = pair
    adapter = refiners.load_adapter("lora", model, file=path)
    try:
        pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name="style")
        pipe.set_adapters(["style"], [scale])
        yield adapter
    finally:
        adapter.eject()
        pipe.unload_lora_weights()


def generations(pair, conditions=None):
    pipe, model = pair
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    theirs = pipe(
        "a cat",
        negative_prompt="dull",
        num_inference_steps=20,
        guidance_scale=5.0,
        latents=noise,
        height=32,
        width=32,
        output_type="latent",
    ).images
    arguments = {"negative_prompt": "dull", "steps": 20, "guidance": 5.0, "latents": noise}
    ours = model.generate(
        "a cat", conditions=conditions, **arguments, output="latents", progress=False
    )
    return ours, theirs


def one_alpha(factors):
    """diffusers loses alphas of attentions where they differ, and extra embeddings of SDXL."""
    return {
        (part, name): (down, up, 3.0)
        for (part, name), (down, up, _) in factors.items()
        if not name.startswith("add_embedding")
    }


SPELLED = {
    "kohya": (ALL, lambda factors, base: kohya(one_alpha(factors), base)),
    "processors": (ATTENTION, lambda factors, base: old(factors)),
    "layers": (LINEAR, lambda factors, base: older(factors)),
    "PEFT": (ATTENTION, lambda factors, base: peft(factors)),
}


def check_networks(pair, tensors, path, differ):
    save_file(tensors, path)
    bare = [ours for _, ours, _ in networks(pair, {})]
    with worn_by_both(pair, path, 0.7) as adapter:
        for (name, ours, theirs), before in zip(networks(pair, {adapter: 0.7}), bare, strict=True):
            assert differ(ours, theirs) <= 1e-5, name
            assert differ(before, theirs) > 1e-2, name


@pytest.mark.parametrize("dialect", SPELLED)
def test_networks_equal_those_of_diffusers_for_a_dialect(pair, dialect, tmp_path, differ):
    pipe, model = pair
    pattern, spelled = SPELLED[dialect]
    tensors = spelled(factors_of(pipe, model.base, pattern), model.base)
    check_networks(pair, tensors, tmp_path / "style.safetensors", differ)


@pytest.mark.parametrize("pair", ["sdxl"], indirect=True)  # of no other base diffusers reads them
def test_networks_equal_those_of_diffusers_for_sgm_names(pair, tmp_path, differ):
    factors = one_alpha(factors_of(pair[0], "sdxl", ATTENTION))
    tensors = kohya(factors, "sdxl", ldm("sdxl"))
    check_networks(pair, tensors, tmp_path / "style.safetensors", differ)


def test_every_dialect_means_the_same(pair, tmp_path):
    """Those that diffusers does not read, or reads in part, are held to its own names."""
    pipe, model = pair
    base, attention = model.base, factors_of(pipe, model.base, ATTENTION)
    factors = factors_of(pipe, base, ALL)

    def read_as(tensors):
        save_file(tensors, tmp_path / "style.safetensors")
        with refiners.load_adapter("lora", file=tmp_path / "style.safetensors").on(
            model
        ) as adapter:
            layers = dict(adapter.own_layers.named_children())
            return adapter.published(), {path: layer.alpha for path, layer in layers.items()}

    def same(left, other):
        assert left[1] == other[1]
        assert left[0].keys() == other[0].keys()
        assert all(torch.equal(left[0][key], other[0][key]) for key in left[0])

    flat = read_as(kohya(factors, base))
    same(read_as(kohya(factors, base, ldm(base))), flat)
    whole = peft(attention)
    same(read_as(old(attention)), read_as(whole))
    unet_only = {key: value for key, value in whole.items() if key.startswith("unet.")}
    bare = {key.removeprefix("unet."): value for key, value in unet_only.items()}
    same(read_as(bare), read_as(unet_only))
    images = {key: value for key, value in attention.items() if key[0] == "unet"}
    same(read_as(old(images, prefix="")), read_as(unet_only))
    prefixed = {f"base_model.model.{key}": value for key, value in bare.items()}
    with pytest.warns(UserWarning, match="each alpha is assumed to be the rank"):
        same(read_as(prefixed), read_as(unet_only))


def test_alphas_that_PEFT_configured_are_followed(pair, tmp_path, differ):
    pipe, model = pair
    unet = pipe.unet
    config = LoraConfig(
        r=4,
        lora_alpha=2,
        target_modules=["to_q", "to_k", "conv_in", "conv1"],
        rank_pattern={"attn1.to_q": 2},
        alpha_pattern={"attn2.to_k": 7, "^conv_in": 9},
        use_rslora=True,
    )
    unet.add_adapter(config, adapter_name="style")
    try:
        for name, weight in unet.named_parameters():
            if "lora_" in name:
                weight.data.normal_(std=0.2)
        pipe.save_lora_weights(
            tmp_path,
            unet_lora_layers=get_peft_model_state_dict(unet, adapter_name="style"),
            unet_lora_adapter_metadata=config.to_dict(),
        )
        file = tmp_path / "pytorch_lora_weights.safetensors"
        adapter = refiners.load_adapter("lora", model, file=file)
        _, ours, theirs = next(networks(pair, {adapter: 1.0}))
        assert differ(ours, theirs) <= 1e-5
        # what we save means the same to us
        adapter.save(tmp_path / "again.safetensors")
        again = refiners.load_adapter("lora", file=tmp_path / "again.safetensors")
        again.inject(model.eject_all())
        assert torch.equal(next(networks(pair, {again: 1.0}))[1], ours)
        again.eject()
    finally:
        model.eject_all()
        pipe.unload_lora_weights()


def test_saved_loras_mean_the_same_to_diffusers(pair, tmp_path, differ):
    pipe, model = pair
    save_file(kohya(factors_of(pipe, model.base, ALL), model.base), tmp_path / "style.safetensors")
    adapter = refiners.load_adapter("lora", model, file=tmp_path / "style.safetensors")
    adapter.save(tmp_path / "saved.safetensors")
    adapter.eject()
    with worn_by_both(pair, tmp_path / "saved.safetensors", 1.0) as adapter:
        for name, ours, theirs in networks(pair, {adapter: 1.0}):
            assert differ(ours, theirs) <= 1e-5, name


@pytest.mark.parametrize(
    "pair", ["sd15", pytest.param("sdxl", marks=pytest.mark.slow)], indirect=True
)
def test_a_whole_generation_with_two_equals_that_of_diffusers(pair, tmp_path, differ):
    pipe, model = pair
    adapters = {}
    try:
        for seed, (name, scale) in enumerate({"ink": 0.8, "wash": -0.4}.items()):
            file = tmp_path / f"{name}.safetensors"
            save_file(peft(factors_of(pipe, model.base, ATTENTION, seed)), file)
            pipe.load_lora_weights(tmp_path, weight_name=file.name, adapter_name=name)
            adapters[refiners.load_adapter("lora", model, file=file)] = scale
        pipe.set_adapters(["ink", "wash"], [0.8, -0.4])
        conditions = {adapter: Condition(scale=scale) for adapter, scale in adapters.items()}
        ours, theirs = generations(pair, conditions)
        assert differ(ours, theirs) <= 1e-4
    finally:
        model.eject_all()
        pipe.unload_lora_weights()


def test_a_dora_at_a_strength_equals_that_of_PEFT(pair, tmp_path, differ):
    """diffusers drops the magnitudes of kohya's files, so the file is in its own names."""
    pipe, model = pair
    unet = pipe.unet
    config = LoraConfig(r=4, lora_alpha=2, use_dora=True, target_modules=["to_q", "to_v", "conv1"])
    unet.add_adapter(config, adapter_name="style")
    try:
        for name, weight in unet.named_parameters():
            if "magnitude" in name:
                weight.data *= 1 + 0.3 * torch.randn(weight.shape)
            elif "lora_" in name:
                weight.data.normal_(std=0.2)
        pipe.save_lora_weights(
            tmp_path,
            unet_lora_layers=get_peft_model_state_dict(unet, adapter_name="style"),
            unet_lora_adapter_metadata=config.to_dict(),
        )
        pipe.set_adapters(["style"], [0.7])
        file = tmp_path / "pytorch_lora_weights.safetensors"
        with refiners.load_adapter(file).on(model) as adapter:
            _, ours, theirs = next(networks(pair, {adapter: 0.7}))
            assert differ(ours, theirs) <= 1e-5
            assert differ(next(networks(pair, {adapter: 1.0}))[1], theirs) > 1e-3
    finally:
        pipe.unload_lora_weights()


@pytest.mark.parametrize("pair", ["sd15"], indirect=True)
def test_token_embeddings_that_PEFT_trained_are_read(pair, tmp_path, differ):
    pipe, model = pair
    encoder = get_peft_model(
        pipe.text_encoder, LoraConfig(r=3, lora_alpha=2, target_modules=["token_embedding", "fc1"])
    )
    try:
        for name, weight in encoder.named_parameters():
            if "lora_" in name:
                weight.data.normal_(std=0.3)
        encoder.save_pretrained(tmp_path, save_embedding_layers=False)
        rows = torch.tensor([[512, *range(30), 513]])
        with (
            refiners.load_adapter("lora", file=tmp_path / "adapter_model.safetensors").on(
                model
            ) as adapter,
            torch.no_grad(),
        ):
            ours = model.text_encoder(rows, context={adapter.scale_key: torch.tensor(1.0)})
            theirs = encoder(rows)[0]
            assert differ(ours, theirs) <= 1e-5
            assert differ(model.text_encoder(rows), theirs) > 1e-2
    finally:
        encoder.unload()
