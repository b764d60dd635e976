"""Autoguidance: guidance away from what a weaker model predicts."""

from collections.abc import Iterable
from typing import Any, Final

from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Seat, Source, Sum, When
from refiners_core.errors import AdapterError
from refiners_core.models.diffusion import COND, Branches, LatentDiffusion, by_branch
from refiners_core.option import number
from refiners_guidance.rule import scale_of_rows


class AutoGuidance(Adapter):
    """Leads away from the prediction that a weaker version of the model makes for the prompt.

    The weaker model is smaller, or trained less (arXiv:2406.02507, equation 3). It reads the same
    latents and the same encoded prompt; adapters do not act in it. The result of guidance gets
    `strength (cond - weak)`, which with `guidance=1` is the paper's guidance of `1 + strength`.

    The adapter takes the UNet of the weaker model over: it moves to the device and the dtype of the
    base, and the rest of that model is not used.

    Args:
        weak: A weaker model of the same base, with text features and latents of the same sizes.
        strength: The strength of guidance at scale 1, the paper's `w - 1`.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: `weak` is not a bare model, or `strength` is negative.
    """

    def __init__(self, *, weak: LatentDiffusion, strength: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.strength: Final = number("strength", strength, 1.0, low=0)
        if not isinstance(weak, LatentDiffusion):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise AdapterError(
                f"{self.key} needs a weaker model as weak=, not {type(weak).__name__}.",
                hint="Pass weak=refiners.load_model(...) with a smaller or less trained model.",
            )
        if weak.adapters:
            raise AdapterError(
                f"the weaker model of {self.key} wears {weak.adapters[0].key}.",
                hint="Call weak.eject_all() first.",
            )
        self._facts: Final = _facts_of(weak)
        self._weak: Final = (weak.layer("denoise.predict"),)  # no module of the adapter until built

    def build(self, model: LatentDiffusion, source: Source | None) -> None:
        """Takes the weaker network over.

        Raises:
            AdapterError: The weaker model has another base or other sizes, or is the model itself.
        """
        (predict,) = self._weak
        for name, value in _facts_of(model).items():
            if self._facts[name] != value:
                raise AdapterError(
                    f"the weaker model of {self.key} has {name} {self._facts[name]}, but this "
                    f"model has {value}.",
                    hint="Pass weak= a model that reads the same prompts and latents.",
                )
        if predict is model.layer("denoise.predict"):
            raise AdapterError(
                f"the weaker model of {self.key} is this model itself.",
                hint="Pass weak= another model, with its own weights.",
            )
        self.layer(model.slot("denoise.guidance")[0], lambda: predict)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Adds the pass through the weaker network, and leads away from it."""
        (predict,) = self._weak

        def guided(inner: nn.Module, seat: Seat) -> nn.Module:
            network = self.layer(seat, lambda: predict)
            return Sum(inner, When(self.scale_key, AwayFromWeak(self, network)))

        return model.slot("denoise.guidance").wrap(guided)


class AwayFromWeak(Chain):
    """Returns the difference between the prediction with the prompt and that of a weaker network.

    Args:
        adapter: The adapter with the strength.
        predict: The weaker network.
    """

    branches: nn.Module
    predict: nn.Module

    def __init__(self, adapter: AutoGuidance, predict: nn.Module) -> None:
        super().__init__(branches=Branches(), predict=predict)
        self.scale, self.strength = adapter.scale_key, adapter.strength

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        cond = by_branch(context["branches"], inputs[0])[COND]
        scope = context.scope()
        scope["branches"] = (COND,)
        rows = self.call(self.branches, scope, context["latents"])
        weight = self.strength * scale_of_rows(context[self.scale], len(cond))
        return weight * (cond - self.call(self.predict, scope, rows))


def _facts_of(model: LatentDiffusion) -> dict[str, Any]:
    config = model.unet.config
    return {
        "base": model.base,
        "a text width of": config.text_width,
        "input channels of": config.in_channels,
        "added numbers of": config.added_cond_width,
        "a prediction of": model.sampler.schedule.prediction,
    }
