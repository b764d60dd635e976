"""Image prompts with random weights in the published layouts, tiny, and their Hub."""

import io
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import pytest
import tomlkit
import torch
from refiners.installed import inventory
from refiners.installed.distribution import distributions
from refiners.testing import LoopbackHub
from safetensors.torch import save
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
)

from .tiny_hub import install

HIDDEN: Final = 16
EMBEDDING: Final = 20
ENCODER: Final = {
    "image-size": 32,
    "patch-size": 8,
    "width": HIDDEN,
    "inner-width": 32,
    "layers": 3,
    "heads": 2,
    "projection-width": EMBEDDING,
}
DINO_NAME: Final = "ip-adapter-dinov2"
DINO: Final = {
    "image-size": 28,
    "input-size": 42,
    "width": 24,
    "inner-width": 96,
    "layers": 2,
    "heads": 2,
}
RANK: Final = 3
Shapes = dict[str, tuple[int, ...]]


def linear(width: int, embedding: int = EMBEDDING) -> Shapes:
    return affine("proj", 4 * width, embedding) | norm("norm", width)


def full(width: int) -> Shapes:
    return (
        affine("proj.0", HIDDEN, HIDDEN) | affine("proj.2", width, HIDDEN) | norm("proj.3", width)
    )


def plus(width: int, features: int = HIDDEN, inner: int = 64) -> Shapes:
    sizes = affine("proj_in", inner, features) | affine("proj_out", width, inner)
    sizes |= norm("norm_out", width) | layers("", inner, inner)
    return {"latents": (1, 16, inner), **sizes}


def face(width: int, tokens: int = 4) -> Shapes:
    sizes = affine("proj.0", 1024, 512) | affine("proj.2", tokens * width, 1024)
    return sizes | norm("norm", width)


def portrait(width: int) -> Shapes:
    return face(width, 16)


def unnormed(width: int) -> Shapes:
    return plus(width, 512)


def face_plus(width: int, features: int = HIDDEN, inner: int = 64) -> Shapes:
    sizes = affine("proj_in", width, features) | affine("proj_out", width, width)
    resampler = sizes | norm("norm_out", width) | layers("", width, inner)
    return face(width) | {f"perceiver_resampler.{key}": size for key, size in resampler.items()}


def affine(name: str, rows: int, columns: int) -> Shapes:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def layers(prefix: str, width: int, inner: int) -> Shapes:
    sizes: Shapes = {}
    for i in range(4):
        at = f"{prefix}layers.{i}"
        for name in ("0.norm1", "0.norm2", "1.0"):
            sizes |= norm(f"{at}.{name}", width)
        sizes |= {f"{at}.0.to_q.weight": (inner, width), f"{at}.0.to_kv.weight": (2 * inner, width)}
        sizes |= {f"{at}.0.to_out.weight": (width, inner), f"{at}.1.1.weight": (4 * width, width)}
        sizes |= {f"{at}.1.3.weight": (width, 4 * width)}
    return sizes


def drawn(shapes: Shapes) -> dict[str, Tensor]:
    """Returns random tensors of some shapes."""
    return {
        key: torch.randn(size) * (size[-1] ** -0.5 if len(size) > 1 else 0.5)
        for key, size in shapes.items()
    }


def attentions(unet: Any, rank: int = 0, std: float = 0.3) -> dict[str, Tensor]:
    """Returns random attentions, numbered as diffusers lists those of its UNet."""
    text, tensors = unet.config.cross_attention_dim, dict[str, Tensor]()
    for n, name in enumerate(unet.attn_processors):
        width = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
        if "attn2" in name:
            for letter in "kv":
                tensors[f"{n}.to_{letter}_ip.weight"] = torch.randn(width, text) * std
        source = text if "attn2" in name else width
        for part, columns in {"q": width, "k": source, "v": source, "out": width}.items():
            if rank:
                tensors[f"{n}.to_{part}_lora.down.weight"] = torch.randn(rank, columns) * std
                tensors[f"{n}.to_{part}_lora.up.weight"] = torch.randn(width, rank) * std
    return tensors


PROJECTIONS: Final = {
    "ip-adapter": linear,
    "ip-adapter-plus": plus,
    "ip-adapter-full-face": full,
    "ip-adapter-faceid": face,
    "ip-adapter-faceid-plus": face_plus,
    "ip-adapter-faceid-plusv2": face_plus,
    "ip-adapter-faceid-portrait-v11": portrait,
    "ip-adapter-faceid-portrait-unnorm": unnormed,
}
"""The projection of each adapter; FaceIDs but portraits contain a LoRA."""


def published(unet: Any, names: Any = PROJECTIONS) -> dict[str, dict[str, dict[str, Tensor]]]:
    """Returns random weights of adapters for a UNet, nested as pickles are."""
    torch.manual_seed(2)
    width, nested = unet.config.cross_attention_dim, dict[str, Any]()
    for name in names:
        rank = RANK if "faceid" in name and "portrait" not in name else 0
        nested[name] = {
            "image_proj": drawn(PROJECTIONS[name](width)),
            "ip_adapter": attentions(unet, rank),
        }
    return nested


def vision() -> CLIPVisionModelWithProjection:
    """Returns a tiny image encoder."""
    torch.manual_seed(1)
    names = {"projection_dim": EMBEDDING, "hidden_act": "gelu", "patch_size": 8, "image_size": 32}
    sizes = {"hidden_size": HIDDEN, "intermediate_size": 32, "num_hidden_layers": 3}
    config = CLIPVisionConfig(**names, **sizes, num_attention_heads=2)
    return CLIPVisionModelWithProjection(config).eval()


def dino() -> Dinov2Model:
    """Returns a tiny DINOv2."""
    torch.manual_seed(1)
    sizes = {"hidden_size": DINO["width"], "num_hidden_layers": DINO["layers"]}
    config = Dinov2Config(**sizes, num_attention_heads=DINO["heads"], image_size=28)
    return Dinov2Model(config).eval()


@contextmanager
def serving(
    folder: Path, bases: Mapping[str, Any], encoder: Any, sizes: Mapping[str, Any] = ENCODER
) -> Iterator[LoopbackHub]:
    """Serves adapters and their encoder; the manifest is as it is, pins and sizes apart.

    Args:
        folder: An empty folder.
        bases: For each base, its UNet and the nested weights of its adapters by name.
        encoder: The image encoder.
        sizes: Its sizes, as a manifest states them.
    """
    manifest = tomllib.loads((files("refiners_ipadapter") / "adapter.toml").read_text())
    specs, repositories = manifest["adapter"], dict[str, dict[str, bytes]]()
    names = {name for _, nested in bases.values() for name in nested}
    dino = specs[DINO_NAME]
    dino["variant"] = [variant for variant in dino["variant"] if variant["base"] in bases]
    for variant in dino["variant"]:
        width = bases[variant["base"]][0].config.cross_attention_dim
        variant |= {"facts": {"cross_attention_dim": width}, "settings": {"encoder": DINO}}
    manifest["adapter"] = {name: specs[name] for name in sorted(names)} | {DINO_NAME: dino}
    specs = {name: specs[name] for name in sorted(names)}
    for name, spec in specs.items():
        bound = [(v, *bases[v["base"]]) for v in spec["variant"] if v["base"] in bases]
        bound = [(variant, unet, nested) for variant, unet, nested in bound if name in nested]
        spec["variant"] = [variant for variant, _, _ in bound]
        for variant, unet, nested in bound:
            variant["facts"] = {"cross_attention_dim": unet.config.cross_attention_dim}
            variant["settings"] = variant.get("settings", {}) | {"encoder": {**sizes}}
            roles = variant["weights"]
            for role, label in ({"weights": roles} if isinstance(roles, str) else roles).items():
                file = spec["weights"][label]
                content = repositories.setdefault(file["source"], {})
                tensors = encoder.state_dict() if role == "encoder" else nested[name]
                content[file["file"]] = saved(tensors, file.get("format", ""))
    with LoopbackHub() as hub, hub.in_use(folder / "hf"), pytest.MonkeyPatch.context() as patch:
        for source, content in repositories.items():
            repository = hub.publish(source.removeprefix("hf:"), content)
            for spec in specs.values():
                for file in spec["weights"].values():
                    if file["source"] == source and file["file"] in content:
                        digest = repository.sha256(file["file"])
                        file |= {"revision": repository.commit, "sha256": digest}
                        file["size"] = len(content[file["file"]])
        install(folder, "tiny_ipadapter", tomlkit.dumps(manifest))
        patch.syspath_prepend(str(folder))
        patch.setattr(inventory, "distributions", lambda: distributions([str(folder)]))
        yield hub


def saved(tensors: Any, file_format: str) -> bytes:
    """Returns the bytes of a file: flat safetensors, or a nested pickle."""
    if file_format == "pickle":
        buffer = io.BytesIO()
        torch.save({part: dict(content) for part, content in tensors.items()}, buffer)
        return buffer.getvalue()
    flat: dict[str, Tensor] = {}
    for name, value in tensors.items():
        parts = value if isinstance(value, Mapping) else {"": value}
        flat |= {f"{name}.{key}".rstrip("."): part.contiguous() for key, part in parts.items()}
    return save(flat)
