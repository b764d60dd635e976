"""Adapters of the released sizes, from files in the published layout, held to their peers.

`pytest -m slow tests/parity/test_full_size_adapters.py -rP` prints how far apart they are. The base
models have no weights where an adapter does not read them. The largest case needs 12 GB of memory.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import refiners
import torch
from diffusers import ControlNetModel, ControlNetUnionModel, T2IAdapter, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from refiners_core.models import sd15, sdxl
from refiners_core.models.clip import CLIP_TEXT_KEYS, ClipTokenizer
from refiners_core.models.formats.diffusers_config import of_text_encoder, of_unet
from refiners_core.models.unet import UNET_KEYS
from refiners_core.weights import load

from .ldm_control import ldm_named
from .test_controlnet import request_of
from .test_full_size import drawn, folder

__all__ = ["folder"]
pytestmark = pytest.mark.slow

BUILD = {"sd15": sd15.build, "sdxl": sdxl.build}
SIDE = 16
"""The side of the latents; pictures are eight times as large."""
ENCODER = {"conditioning_embedding_out_channels": (16, 32, 96, 256)}
LEARNED = ("time_embedding", "add_embedding", "conv_in", "down_blocks", "mid_block")


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def check(differ: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Prints how far ours is from theirs, and holds it to the bar."""

    def apart(ours: Any, theirs: Any) -> None:
        errors = [differ(a, b) for a, b in zip(ours, theirs, strict=True)]
        print(f"{request.node.name}: {max(errors):.1e}")
        assert all(output.std() > 1e-3 for output in theirs), "nothing to compare"
        assert max(errors) <= 1e-5

    return apart


def bare(family: str) -> Any:
    """Returns a base model of the released size whose weights are never read."""
    return BUILD[family](device="meta").to_empty(device="cpu").requires_grad_(False)


def theirs_of(family: str) -> Any:
    """Returns diffusers' UNet of the same size with random weights."""
    return drawn(lambda: UNet2DConditionModel(**sizes(family)))


def sizes(family: str) -> dict[str, Any]:
    """Returns the sizes of a UNet as diffusers' ControlNets read them."""
    return of_unet(BUILD[family](device="meta").unet.config) | {"layers_per_block": 2}


def inputs(family: str) -> dict[str, Any]:
    source = torch.Generator().manual_seed(3)
    width = {"sd15": 768, "sdxl": 2048}[family]
    return {
        "latents": torch.randn(2, 4, SIDE, SIDE, generator=source),
        "text": torch.randn(2, 77, width, generator=source),
        "pixels": torch.rand(2, 3, 8 * SIDE, 8 * SIDE, generator=source),
        "pooled": torch.randn(2, 1280, generator=source),
        "time_ids": torch.rand(2, 6, generator=source) * 999,
    }


def network(family: str, **changes: Any) -> Any:
    """Returns diffusers' ControlNet of the released size."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**sizes(family))
        config = dict(ControlNetModel.from_unet(unet, load_weights_from_unet=False).config)
    config |= {**ENCODER, **changes}
    known = {key: value for key, value in config.items() if not key.startswith("_")}
    return drawn(lambda: ControlNetModel(**known))


def outputs_of(peer: Any, family: str, **options: Any) -> tuple[Tensor, ...]:
    values = inputs(family)
    options = {
        "controlnet_cond": values["pixels"],
        "encoder_hidden_states": values["text"],
        **options,
    }
    skips, mid = peer(
        values["latents"],
        torch.tensor(321),
        added_cond_kwargs={"text_embeds": values["pooled"], "time_ids": values["time_ids"]},
        return_dict=False,
        **options,
    )
    return (*skips, mid)


def outputs(adapter: Any, model: Any, family: str, value: Any = None) -> tuple[Tensor, ...]:
    """Returns the outputs of the side network of a worn adapter."""
    values = inputs(family)
    pixels = values["pixels"] if value is None else value
    encoded = adapter.encode(pixels, request_of(model, 8 * SIDE))
    context = {
        key: branches["cond"].expand(2, *branches["cond"].shape[1:])
        for key, branches in encoded.items()
    }
    context |= {"timestep": torch.tensor(321), "text": values["text"]}
    context |= {"pooled": values["pooled"], "time_ids": values["time_ids"]}
    context |= {adapter.scale_key: torch.tensor(1.0)}
    side = adapter.parts.network
    run = side if isinstance(side, torch.nn.Module) else side(model.unet)
    return run(values["latents"], context=context)


@pytest.mark.parametrize("family", BUILD)
def test_controlnets_equal_those_of_diffusers(family: str, folder: Path, check: Any) -> None:
    peer = network(family)
    expected = outputs_of(peer, family)
    save_file(dict(peer.state_dict()), folder / "file.safetensors")
    del peer
    model = bare(family)
    adapter = refiners.load_adapter("controlnet", model, file=folder / "file.safetensors")
    check(outputs(adapter, model, family), expected)


def test_a_union_equals_that_of_diffusers(folder: Path, check: Any) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**sizes("sdxl"))
        config = dict(ControlNetUnionModel.from_unet(unet, load_weights_from_unet=False).config)
    known = {key: value for key, value in (config | ENCODER).items() if not key.startswith("_")}
    peer = drawn(lambda: ControlNetUnionModel(**known))
    types = torch.zeros(2, known["num_control_type"])
    types[:, 1] = 1
    pixels = inputs("sdxl")["pixels"]
    single = {"controlnet_cond": [pixels], "control_type": types, "control_type_idx": [1]}
    expected = outputs_of(peer, "sdxl", **single, conditioning_scale=1.0)
    save_file(dict(peer.state_dict()), folder / "file.safetensors")
    del peer
    model = bare("sdxl")
    adapter = refiners.load_adapter("controlnet-union", model, file=folder / "file.safetensors")
    check(outputs(adapter, model, "sdxl", {"depth": pixels}), expected)


def test_a_control_lora_of_rank_128_equals_the_dense_network(folder: Path, check: Any) -> None:
    base = theirs_of("sd15")
    dense = dict(network("sd15").state_dict())
    dense |= {key: value for key, value in base.state_dict().items() if key in dense}
    source, file = torch.Generator().manual_seed(1), dict[str, Tensor]()
    names = ldm_named({key: key for key in dense})
    for (key, value), name in zip(dense.items(), names, strict=True):
        if not key.startswith(LEARNED) or value.ndim == 1:
            file[name] = value
            continue
        rank = min(128, len(value), value[0].numel())
        up = torch.randn(len(value), rank, generator=source) * rank**-0.5
        down = torch.randn(rank, *value.shape[1:], generator=source) * value[0].numel() ** -0.5
        module = name.removesuffix(".weight")
        file[f"{module}.up"] = up[..., None, None] if value.ndim == 4 else up
        file[f"{module}.down"] = down
        dense[key] = value + (up @ down.flatten(1)).view(value.shape)
    save_file({**file, "lora_controlnet": torch.zeros(0)}, folder / "file.safetensors")
    peer = network("sd15")
    peer.load_state_dict(dense)
    expected = outputs_of(peer, "sd15")
    del peer, dense
    model = bare("sd15")
    load(model.unet, base.state_dict(), UNET_KEYS)
    adapter = refiners.load_adapter("control-lora", model, file=folder / "file.safetensors")
    check(outputs(adapter, model, "sd15"), expected)


@pytest.mark.parametrize(
    ("family", "kind", "factor"), [("sd15", "full_adapter", 8), ("sdxl", "full_adapter_xl", 16)]
)
def test_t2i_adapters_equal_those_of_diffusers(
    family: str, kind: str, factor: int, folder: Path, check: Any
) -> None:
    peer = drawn(lambda: T2IAdapter(adapter_type=kind, downscale_factor=factor))
    pixels = inputs(family)["pixels"]
    expected = peer(pixels)
    save_file(dict(peer.state_dict()), folder / "file.safetensors")
    model = bare(family)
    adapter = refiners.load_adapter("t2i-adapter", model, file=folder / "file.safetensors")
    encoded = adapter.encode(pixels, request_of(model, 8 * SIDE))
    check([branches["cond"] for branches in encoded.values()], expected)


@pytest.mark.parametrize("family", BUILD)
def test_a_lora_equals_that_of_peft(family: str, folder: Path, check: Any) -> None:
    peer = theirs_of(family)
    model = bare(family)
    load(model.unet, peer.state_dict(), UNET_KEYS)
    targets = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "proj_in", "ff.net.2"]
    peer.add_adapter(LoraConfig(r=16, lora_alpha=8, target_modules=targets))
    for name, weight in peer.named_parameters():
        if "lora_" in name:
            weight.normal_(std=0.02)
    tensors = get_peft_model_state_dict(peer, adapter_name="default")
    alphas = {f"unet.{key.removesuffix('.lora_A.weight')}.alpha" for key in tensors}
    file = {f"unet.{key}": value for key, value in tensors.items()}
    file |= {key: torch.tensor(8.0) for key in alphas if not key.endswith("weight.alpha")}
    save_file(file, folder / "file.safetensors")
    adapter = refiners.load_adapter(folder / "file.safetensors", model)
    values = inputs(family)
    context = {key: values[key] for key in ("text", "pooled", "time_ids")}
    context |= {"timestep": torch.tensor(321), adapter.scale_key: torch.tensor(1.0)}
    added = {"text_embeds": values["pooled"], "time_ids": values["time_ids"]}
    expected = peer(
        values["latents"], torch.tensor(321), values["text"], added_cond_kwargs=added
    ).sample
    made = model.unet(values["latents"], context=context)
    adapter.eject()
    assert not torch.equal(model.unet(values["latents"], context=context), made)
    check([made], [expected])


def test_a_learned_word_equals_that_of_transformers(folder: Path, check: Any) -> None:
    words = ["<|startoftext|>", "<|endoftext|>", "a", "b", "c", "a</w>", "b</w>", "c</w>"]
    words += [f"{number}</w>" for number in range(49408 - len(words))]
    tokenizer = ClipTokenizer({word: id for id, word in enumerate(words)}, [], length=77)
    model = sd15.build(device="meta", tokenizer=tokenizer)
    config = model.text_encoder.config
    peer = drawn(lambda: CLIPTextModel(CLIPTextConfig(**of_text_encoder(config))))
    weights = {f"text_model.{k.removeprefix('text_model.')}": w
               for k, w in peer.state_dict().items()}  # fmt: skip
    load(model.text_encoder, weights, CLIP_TEXT_KEYS)
    vectors = torch.randn(3, 768, generator=torch.Generator().manual_seed(5)) * 0.02
    save_file({"<cat>": vectors}, folder / "cat.safetensors")
    adapter = refiners.load_adapter(folder / "cat.safetensors", model)
    ours = model.read(["a <cat> b"], {adapter.scale_key: torch.tensor(1.0)})["text"]
    table = peer.get_input_embeddings()
    size = len(table.weight)
    table.weight.data = torch.cat((table.weight, vectors))
    ids = [tokenizer.start, *tokenizer.tokens("a"), size, size + 1, size + 2,
           *tokenizer.tokens("b"), tokenizer.end]  # fmt: skip
    ids += [tokenizer.padding] * (77 - len(ids))
    check([ours], [peer(torch.tensor([ids])).last_hidden_state])
