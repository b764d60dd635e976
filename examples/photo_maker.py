"""
PhotoMaker
==========

The identity of a face enters the prompt: after the text encoders, the features of the word before a
trigger are fused with those of a picture (arXiv:2312.04461, section 3.2).
"""

# %%
# ``request.tokens`` has the tokens of every prompt, one for each feature; so the place of the
# trigger is known before the texts are read. What ``encode`` returns is in the context while they
# are read, in the same rows.

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Seat
from refiners_core.errors import ConditionError

TRIGGER = "@"


class Fuse(Chain):
    """Replaces the features of marked tokens by their fusion with an identity (equation 1)."""

    def __init__(self, adapter: Adapter, width: int) -> None:
        super().__init__(mix=nn.Linear(2 * width, width), norm=nn.LayerNorm(width))
        self.scale, self.identity = adapter.scale_key, adapter.context_key("identity")
        self.place = adapter.context_key("place")

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        words = inputs[0]
        if self.scale not in context:
            return words
        identity = context[self.identity][:, None].expand_as(words)
        fused = words + super().run(context, torch.cat([words, identity], dim=-1))
        return torch.where(context[self.place][..., None], fused, words)


class PhotoMaker(Adapter):
    """Puts a face into the word before ``@`` (arXiv:2312.04461)."""

    takes_condition: ClassVar[bool] = True

    def build(self, model: Any, source: Any) -> None:
        width = model.unet.config.text_width
        self.look = nn.Linear(3 * 4, width).to(model.unet.dtype)
        self.fuse = Fuse(self, width).to(model.unet.dtype)

    def edits(self, model: Any) -> tuple[Edit, ...]:
        def fused(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(inner, self.fuse)

        return model.slot("text_encoder.text").wrap(fused, stage="output", name="fuse")

    def places(self, request: Any) -> Tensor:
        """Returns where the token before the trigger is, (count, tokens)."""
        (trigger,) = request.model.tokenizer.tokens(TRIGGER)
        return request.tokens["cond"].ids[0].roll(-1, dims=1) == trigger

    def check(self, value: Any, request: Any) -> None:
        if request.tokens and not self.places(request).any(1).all():
            raise ConditionError(
                f"{self.key} finds no {TRIGGER} in the prompt.",
                hint=f'Mark the word that the face belongs to: "a man {TRIGGER} on a beach".',
            )

    def encode(self, value: Tensor, request: Any) -> dict[str, dict[str, Tensor]]:
        flat = nn.functional.adaptive_avg_pool2d(value.to(request.dtype), 2).flatten(1)
        places = self.places(request)
        return {
            self.context_key("identity"): {"cond": self.look(flat)},
            self.context_key("place"): {"cond": places, "uncond": torch.zeros_like(places)},
        }


# %%
# On a tiny model
# ---------------

if __name__ == "__main__":
    from refiners_core.testing import tiny_model

    torch.manual_seed(0)
    model = tiny_model()
    maker = PhotoMaker(key="photo").inject(model)
    print(model.layer("text_encoder+fuse@photo", Chain)[-1])
    options = {"steps": 2, "seed": 7, "output": "latents", "progress": False}
    faces = [torch.rand(1, 3, 32, 32) for _ in range(2)]
    a, b = (model.generate("a cat@", conditions={maker: face}, **options) for face in faces)
    print(f"{(a - b).abs().mean():.4f} between two faces")
