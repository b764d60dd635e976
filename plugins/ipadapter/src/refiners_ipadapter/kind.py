"""The kinds of published projections: how each is recognised, named in files, and sized."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from refiners_core import Chain
from refiners_core.errors import WeightsError
from refiners_core.models.image_prompt import (
    GUIDED_RESAMPLER_KEYS,
    RESAMPLER_KEYS,
    Resampler,
    ResamplerConfig,
)
from refiners_core.weights import KeyMap
from refiners_ipadapter.projection import (
    FaceProjection,
    FaceResampler,
    FullProjection,
    ImageProjection,
)

Shapes = Mapping[str, Tensor]
"""Published tensors below `image_proj`, of which only the shapes are read."""


@dataclass(frozen=True)
class Kind:
    """A kind of projection."""

    what: str
    """The kind of file in words, such as `an IP-Adapter Plus`."""
    adapter: str
    """The adapter that reads such files."""
    mark: str
    """The published tensor, below `image_proj`, by which the kind is recognised."""
    layout: KeyMap
    """The published names below `image_proj`."""
    build: Callable[[Shapes, bool], Chain]
    """Builds the projection in the sizes of published tensors, with a shortcut or without; only
    FaceID Plus has both forms."""


def _linear(shapes: Shapes, _: bool) -> Chain:
    tokens_width, embedding = shapes["proj.weight"].shape
    (width,) = shapes["norm.weight"].shape
    return ImageProjection(embedding, width, tokens_width // width)


def _full(shapes: Shapes, _: bool) -> Chain:
    width, features = shapes["proj.2.weight"].shape
    return FullProjection(features, width)


def _face(shapes: Shapes, _: bool = False) -> FaceProjection:
    (width,) = shapes["norm.weight"].shape
    tokens_width, inner = shapes["proj.2.weight"].shape
    return FaceProjection(shapes["proj.0.weight"].shape[1], width, tokens_width // width, inner)


def _face_plus(shapes: Shapes, has_shortcut: bool) -> Chain:
    prefix = "perceiver_resampler"
    latents = shapes[f"{prefix}.proj_in.bias"].view(1, 1, -1)  # given by the face, not learned
    config = ResamplerConfig.from_tensors({**shapes, f"{prefix}.latents": latents}, prefix)
    return FaceResampler(_face(shapes), config, has_shortcut)


def _plus(shapes: Shapes, _: bool) -> Chain:
    prefixed = {f"image_proj.{key}": tensor for key, tensor in shapes.items()}
    return Resampler(ResamplerConfig.from_tensors(prefixed))


_FACE_KEYS: Final = KeyMap({"expand": "proj.0", "contract": "proj.2", "norm": "norm"})

LINEAR: Final = Kind(
    "an IP-Adapter with a linear projection",
    "ip-adapter",
    "proj.weight",
    KeyMap({"proj": "proj", "norm": "norm"}),
    _linear,
)
FULL: Final = Kind(
    "an IP-Adapter Full",
    "ip-adapter-full-face",
    "proj.3.weight",
    KeyMap({"expand": "proj.0", "contract": "proj.2", "norm": "proj.3"}),
    _full,
)
FACE_PLUS: Final = Kind(
    "an IP-Adapter FaceID Plus",
    "ip-adapter-faceid-plus",
    "perceiver_resampler.proj_in.weight",
    _FACE_KEYS.under("inputs.face", "")
    | GUIDED_RESAMPLER_KEYS.under("look.picture.resampled", "perceiver_resampler"),
    _face_plus,
)
FACE: Final = Kind("an IP-Adapter FaceID", "ip-adapter-faceid", "proj.0.weight", _FACE_KEYS, _face)
PLUS: Final = Kind("an IP-Adapter Plus", "ip-adapter-plus", "latents", RESAMPLER_KEYS, _plus)
KINDS: Final = (LINEAR, FULL, FACE_PLUS, FACE, PLUS)
"""The kinds, in the order in which a file is compared with them."""


def projection(tensors: Mapping[str, Tensor], kind: Kind, has_shortcut: bool = False) -> Chain:
    """Builds the projection of published tensors.

    Args:
        tensors: All tensors of a file.
        kind: The kind that the adapter reads.
        has_shortcut: Whether a FaceID Plus is of version 2.

    Raises:
        WeightsError: The tensors are not an IP-Adapter, or one of another kind.
    """
    shapes = {
        key.removeprefix("image_proj."): tensor
        for key, tensor in tensors.items()
        if key.startswith("image_proj.")
    }
    match = next((candidate for candidate in KINDS if candidate.mark in shapes), None)
    if match is None:
        examples = ", ".join(sorted(tensors)[:3]) or "nothing"
        raise WeightsError(
            "these are not the weights of an IP-Adapter: they have no projection below "
            f"'image_proj.', but {examples}, for example.",
            hint="Give a file such as ip-adapter_sd15.safetensors.",
        )
    if match is not kind:
        raise WeightsError(
            f"this file is {match.what}, not {kind.what}.",
            hint=f'Load it with load_adapter("{match.adapter}", model, file=...).',
        )
    try:
        return kind.build(shapes, has_shortcut)
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"this file is {kind.what} with a part missing or misshapen: {error}.",
            hint="Download it again.",
        ) from error
