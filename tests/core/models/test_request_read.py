"""An adapter reads texts without some adapters, and as negative prompts."""

from typing import Any

import pytest
import torch
from torch import Tensor

from refiners_core import Adapter, Condition, Multiply, Sum, When
from refiners_core.models.diffusion import GenerationRequest
from refiners_core.models.samplers import Inverse
from refiners_core.testing import tiny_model, tiny_sdxl

OPTIONS: dict[str, Any] = {
    "steps": 2,
    "count": 2,
    "seed": 1,
    "output": "latents",
    "progress": False,
}


class Louder(Adapter):
    """Makes the features of texts larger."""

    def edits(self, model: Any) -> Any:
        def more(inner: Any, seat: Any) -> Any:
            return Sum(inner, When(self.scale_key, inner, Multiply(self.scale_key)))

        return model.slot("text_encoder.output").wrap(more)


class Reading(Adapter):
    """Keeps what it reads."""

    takes_condition = True

    def edits(self, model: Any) -> Any:
        return model.slot("unet.input").wrap(lambda inner, seat: inner)

    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        self.read = [request.read(texts, **options)["text"] for texts, options in value[0]]
        self.paths = [request.invert(value[1], "a", walk=walk) for walk in value[2]]
        return {}


def read(model: Any, texts: Any, scale: Any = 1.0, walks: Any = ()) -> Reading:
    with Reading(key="reading").on(model) as reading, Louder(key="louder").on(model) as louder:
        picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(2))
        conditions = {reading: (texts, picture, walks), louder: Condition(scale=scale)}
        model.generate("a", conditions=conditions, **OPTIONS)
    return reading


@pytest.mark.parametrize("scale", [1.0, [1.0, 0.5]], ids=str)
def test_texts_are_read_at_a_share_of_the_scale_of_an_adapter(scale: Any):
    model, texts = tiny_model(), ["a cat", "a dog"]
    plain = model.read(texts, {})["text"]
    options = [{"scales": {"louder": share}} for share in (0.0, 0.5)]
    made = read(model, [(texts, each) for each in options], scale).read
    torch.testing.assert_close(made[0], plain)
    by_row = torch.tensor(scale).expand(2).view(2, 1, 1)
    torch.testing.assert_close(made[1], plain * (1 + 0.5 * by_row))


def test_an_empty_negative_prompt_is_zeros_where_the_family_says_so():
    texts = [(["", "a cat"], {"is_negative": negative}) for negative in (True, False)]
    for model, is_silent in ((tiny_sdxl(), True), (tiny_model(), False)):
        negative, positive = read(model, texts, scale=0.0).read
        assert bool((negative[0] == 0).all()) is is_silent
        torch.testing.assert_close(negative[1], positive[1])
        assert not (positive[0] == 0).all()


def test_another_way_back_is_walked():
    class Halfway(Inverse):
        """Adds half of the noise."""

        def _advance(self, step: Any) -> Tensor:
            return self.path[step.index + 1].add_noise(step.x0, step.eps / 2)

    model = tiny_model()
    forward = model.sampler.with_steps(2)
    walks = [None, Inverse.of(forward), Halfway.of(forward)]
    plain, again, half = read(model, [], walks=walks).paths
    assert torch.equal(plain, again)
    assert not torch.allclose(plain, half, atol=1e-3)
