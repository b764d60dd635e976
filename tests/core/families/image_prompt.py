"""IP-Adapter, FaceID, InstantID: a second attention beside each one to the text."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Chain,
    Context,
    Edit,
    Lambda,
    Layer,
    Multiply,
    Parallel,
    Seat,
    Sum,
    UseContext,
    When,
)
from refiners_core.layers.attention import Attend

from .control import ControlNet
from .low_rank import LoraChange

TOKENS = 3


def queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q


class Masked(Layer):
    """Lets tokens that stand for a part of a map count only where a mask of the map is 1."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        mask = context.get(self.key)
        if mask is None:
            return inputs[0]
        height, width = mask.shape[-2:]
        step = round((height * width / inputs[0].shape[1]) ** 0.5)
        small = nn.functional.avg_pool2d(mask, step)
        return inputs[0] * small.flatten(2).transpose(1, 2)


class Look(Chain):
    """The base's queries look at tokens of the adapter's own (arXiv:2308.06721, equation 5)."""

    def __init__(self, adapter: "ImagePrompt", width: int, inner: int, heads: int) -> None:
        tokens = adapter.context_key("tokens")
        super().__init__(
            Parallel(
                q=Lambda(queries),
                k=Chain(UseContext(tokens), to_k=nn.Linear(width, inner, bias=False)),
                v=Chain(UseContext(tokens), to_v=nn.Linear(width, inner, bias=False)),
            ),
            attend=Attend(heads),
            mask=Masked(adapter.context_key("mask")),
            scale=Multiply(adapter.scale_key),
        )


class ImagePrompt(Adapter):
    """Image tokens beside the text (arXiv:2308.06721, section 3.2)."""

    takes_condition: ClassVar[bool] = True
    takes_mask: ClassVar[bool] = True

    def build(self, model: Any, source: Any) -> None:
        width = model.unet.config.text_width
        self.width = width
        self.project = nn.Linear(3 * 4, TOKENS * width).to(model.unet.dtype)

    def edits(self, model: Any) -> tuple[Edit, ...]:
        return model.slot("unet.cross_attention.attend").wrap(self.beside, name="image")

    def beside(self, inner: nn.Module, seat: Seat) -> nn.Module:
        features = seat.chain.layer("to_out", nn.Linear).in_features
        look = self.layer(seat, lambda: Look(self, self.width, features, seat.layer.heads))
        return Sum(inner, When(self.scale_key, look))

    def encode(self, value: Tensor, request: Any) -> dict[str, dict[str, Tensor]]:
        flat = nn.functional.adaptive_avg_pool2d(value.to(request.dtype), 2).flatten(1)
        told = {
            "tokens": {
                "cond": self.project(flat).view(-1, TOKENS, self.width),
                "uncond": self.project(torch.zeros_like(flat)).view(-1, TOKENS, self.width),
            }
        }
        if request.mask is not None:
            side = (request.latent_height, request.latent_width)
            told["mask"] = {"cond": nn.functional.adaptive_avg_pool2d(request.mask, side)}
        return {self.context_key(name): value for name, value in told.items()}


class FaceId(ImagePrompt):
    """An image prompt from a face's features, with a LoRA that comes in the same file."""

    def edits(self, model: Any) -> tuple[Edit, ...]:
        def changed(inner: nn.Module, seat: Seat) -> nn.Module:
            change = self.layer(seat, lambda: LoraChange(seat.layer))
            return Sum(inner, When(self.scale_key, change, Multiply(self.scale_key)))

        queries = model.slot("unet.linear").named("to_q")
        return (*super().edits(model), *queries.wrap(changed, name="face"))


class InstantId(ImagePrompt):
    """An image prompt of a face, and a ControlNet on its keypoints that reads the face's tokens
    where others read the text (arXiv:2401.07519, section 3)."""

    inputs: ClassVar[tuple[str, ...]] = ("face", "keypoints")

    def build(self, model: Any, source: Any) -> None:
        super().build(model, source)
        # One key for both halves, so that they see one scale and one set of tokens.
        self.control = ControlNet(key=self.key, reads=self.context_key("tokens"))
        self.control.build(model, None)

    def edits(self, model: Any) -> tuple[Edit, ...]:
        return (*super().edits(model), *self.control.edits(model))

    def encode(self, value: Mapping[str, Tensor], request: Any) -> dict[str, dict[str, Tensor]]:
        face = super().encode(value["face"], request)
        return face | self.control.encode(value["keypoints"], request)
