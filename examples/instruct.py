"""
IP-Adapter-Instruct
===================

An image prompt with an instruction for how to use the image: its resampler attends to that text and
to the prompt (arXiv:2408.03209).
"""

# %%
# ``request.read`` encodes texts in ``encode``, as the prompts of the generation are encoded.

from typing import Any, ClassVar

import torch
from ip_adapter import TOKENS, ImagePrompt
from torch import Tensor, nn

from refiners_core.layers import Attend


class Reader(nn.Module):
    """Lets tokens of an image attend to tokens of texts (arXiv:2408.03209, section 3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.attend = Attend(1)

    def forward(self, image: Tensor, texts: Tensor) -> Tensor:
        return image + self.attend(self.to_q(image), self.to_k(texts), self.to_v(texts))


class Instruct(ImagePrompt):
    """An image prompt with an instruction (arXiv:2408.03209)."""

    takes_mask: ClassVar[bool] = False
    inputs: ClassVar[tuple[str, ...]] = ("image", "instruction")

    def build(self, model: Any, source: Any) -> None:
        super().build(model, source)
        self.reader = Reader(self.width).to(model.unet.dtype)

    def encode(self, value: Any, request: Any) -> dict[str, dict[str, Tensor]]:
        prompt = request.read(request.prompts["cond"])["text"]
        instruction = request.read([value["instruction"]])["text"].expand(len(prompt), -1, -1)
        flat = nn.functional.adaptive_avg_pool2d(value["image"].to(request.dtype), 2).flatten(1)
        image = self.project(flat).view(-1, TOKENS, self.width).expand(len(prompt), -1, -1)
        nothing = self.project(torch.zeros_like(flat)).view(-1, TOKENS, self.width)
        tokens = self.reader(image, torch.cat([instruction, prompt], dim=1))
        return {self.context_key("tokens"): {"cond": tokens, "uncond": nothing}}


# %%
# On a tiny model
# ---------------

if __name__ == "__main__":
    from refiners_core.testing import tiny_model

    torch.manual_seed(0)
    model = tiny_model()
    instruct = Instruct(key="instruct").inject(model)
    picture = torch.rand(1, 3, 32, 32)
    options = {"steps": 2, "seed": 7, "output": "latents", "progress": False}
    results = [
        model.generate(
            "a cat", conditions={instruct: {"image": picture, "instruction": text}}, **options
        )
        for text in ("use the style", "use the colours")
    ]
    print(f"{(results[0] - results[1]).abs().mean():.4f} between two instructions")
