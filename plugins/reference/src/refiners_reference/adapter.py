"""The pass over a reference picture that all adapters of this package make."""

from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from refiners_core import Adapter, Edit, Passthrough, Seat, SetContext, When
from refiners_core.models.device import moved
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.option import number
from refiners_core.picture import to_pixels
from refiners_reference.observation import Observe, Trace

SEED: Final = 0
"""The seed of the noise that is added to the reference, the same in every generation."""


class Reference(Adapter):
    """Runs the UNet on a reference picture at every step, before the pass over the pictures.

    The reference is as noisy as the pictures are at the step. What layers make of it is recorded,
    and a subclass decides which layers record and what becomes of it in the pictures. Nothing is
    trained. The method has no paper; it comes from web interfaces and the community pipelines of
    diffusers. These draw other noise for the reference at each step; here it is the same at all
    steps and in all generations.

    Adapters that take a condition, such as a ControlNet, do not act in the pass over the reference.

    Args:
        style_fidelity: How far, in 0...1, the pass without a prompt stays as it is without the
            adapter. At 1 guidance amplifies what comes from the reference, at 0 it does not.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: `style_fidelity` is not a number in 0...1.
    """

    takes_condition: ClassVar[bool] = True

    def __init__(self, *, style_fidelity: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        self.style_fidelity: Final = number("style_fidelity", style_fidelity, 0.5, low=0, high=1)
        self.latents_key: Final = self.context_key("latents")
        self.noise_key: Final = self.context_key("noise")
        self.traces_key: Final = self.context_key("traces")

    def observation(self, model: LatentDiffusion) -> tuple[Edit, ...]:
        """Returns the edit that runs the pass over the reference."""

        def observe(seat: Seat) -> Passthrough:
            look = Observe(self.key, seat.layer)
            return Passthrough(When(self.scale_key, look, SetContext(self.traces_key)))

        return model.slot("denoise.predict").before("reference", observe)

    def trace(self, place: int) -> Trace:
        """Returns the names of what is recorded at a place, counted from 0."""
        return Trace(self.key, place, self.style_fidelity)

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses a reference that is not a picture.

        Raises:
            ConditionError: The value is not a picture, or not one per generated picture.
        """
        to_pixels(value, (request.height, request.width))

    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        """Encodes the reference, and draws the noise that is added to it.

        Args:
            value: A picture, or one per generated picture; it is resized to their size.
            request: The generation.
        """
        with moved(request.model.autoencoder, request.offload):
            latents = request.model.encode(to_pixels(value, (request.height, request.width)))
        source = torch.Generator("cpu").manual_seed(SEED)
        noise = torch.randn((1, *latents.shape[1:]), generator=source, device="cpu")
        return {self.latents_key: {"cond": latents}, self.noise_key: {"cond": noise}}
