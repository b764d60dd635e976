"""The facts of one generation that adapters read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.errors import ConditionError
from refiners_core.models.device import moved
from refiners_core.models.diffusion.finite import check_finite
from refiners_core.models.diffusion.prompt_tokens import PromptTokens
from refiners_core.models.diffusion.strength import Scales, StepScales, read_by_picture
from refiners_core.models.samplers import Inverse, Sampler


@dataclass(frozen=True)
class GenerationRequest:
    """The facts of one generation that an adapter's `encode` may need; fields may be added."""

    model: Any
    """The model that generates."""
    count: int
    """The number of images, which is the number of rows of one branch."""
    branches: tuple[str, ...]
    """The passes before adapters add theirs: `uncond` and `cond`, or `cond` alone."""
    height: int
    """Height of the images in pixels."""
    width: int
    """Width of the images in pixels."""
    latent_height: int
    """Height of the latents."""
    latent_width: int
    """Width of the latents."""
    dtype: torch.dtype
    """The dtype of the network, to which the tensors of `encode` are cast."""
    device: torch.device
    """The device of the network, to which the tensors of `encode` are moved."""
    mask: Float[Tensor, "1 1 height width"] | None = None
    """The area in which the adapter acts, in 0...1; None for the whole image."""
    prompts: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """For each branch, the text of each image: `uncond` has the negative prompts."""
    scales: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """The scales of the adapters that act at some step, by context key; 1 for an adapter whose
    scale differs between places or images."""
    places: Scales | None = None
    """All of these scales, by place and image."""
    offload: torch.device | None = None
    """The device of components while they work; None leaves them in place."""
    sampler: Sampler | None = None
    """The sampler of the generation, with its steps."""

    @cached_property
    def tokens(self) -> Mapping[str, PromptTokens]:
        """For each branch, the tokens of the prompts, with a row for each image.

        It is empty for a model without a tokenizer, of which `check` may be asked.
        """
        if self.model.tokenizer is None or not self.prompts:
            return {}
        texts = [text for items in self.prompts.values() for text in items]
        tokens = self.model.tokenize(texts, self.scales)
        parts = zip(*[ids.split(self.count) for ids in (*tokens.ids, tokens.weights)], strict=True)
        return {
            name: PromptTokens(tuple(ids), weights)
            for name, (*ids, weights) in zip(self.prompts, parts, strict=True)
        }

    @torch.no_grad()
    def read(
        self,
        texts: Sequence[str],
        *,
        scales: Mapping[str, float] = MappingProxyType({}),
        is_negative: bool = False,
    ) -> dict[str, Tensor]:
        """Encodes texts as the prompts of this generation are encoded, in a row each.

        Adapters act as in the generation, except those that take a condition: when `encode` runs,
        other conditions may not be encoded yet. Where scales differ by image, as many texts as
        images are read with the scales of their images, and other texts with those of the first.

        Args:
            texts: Any texts, such as `request.prompts["cond"]`.
            scales: Factors of the scales of adapters, by their keys; 0 leaves an adapter out.
            is_negative: Whether these are negative prompts, of which some models encode an empty
                one as zeros.

        Returns:
            `text`, (rows, tokens, width), and for an encoder that pools `pooled`, (rows, width), in
            the dtype and on the device of the network.

        Raises:
            NotFiniteError: The text encoder returned infinite numbers or NaN.
        """
        absent = [item.key for item in self.model.adapters if item.takes_condition]
        by_step = self.places or Scales((), self.dtype, self.device)
        is_silent = [is_negative and self.model.is_silent_when_empty and not text for text in texts]
        is_each = len(texts) == self.count  # a text for each image, so each has its own scales

        def read(step: StepScales) -> dict[str, dict[str, Tensor]]:
            context = step.without(absent).scaled(scales).context({})
            encoded = self.model.read(texts, context, is_silent=is_silent if any(is_silent) else ())
            for value in encoded.values():
                check_finite(value, "text_encoder", self.model.text_encoder.dtype)
            return {key: {"": value.to(self.device, self.dtype)} for key, value in encoded.items()}

        with moved(self.model.text_encoder, self.offload):
            if is_each:
                encoded = read_by_picture(read, by_step, self.count)
            else:
                encoded = read(by_step.outside(0))
        return {key: branches[""] for key, branches in encoded.items()}

    def invert(
        self, image: Any, prompt: str, *, guidance: float = 1.0, walk: Inverse | None = None
    ) -> Float[Tensor, "levels channels latent_height latent_width"]:
        """Returns the latents of an image at each level of this generation's path.

        They are those of DDIM inversion, in the size of this generation; merged adapters act,
        others do not.

        Args:
            image: One image.
            prompt: A text that describes it, such as `request.prompts["cond"][0]`.
            guidance: The scale of guidance on the way back.
            walk: The sampler of the way back through the levels of this generation; by default
                `Inverse.of(request.sampler)`.

        Raises:
            ConditionError: This is not the request of a generation, or `image` is not one image.
        """
        if self.sampler is None:
            raise ConditionError(
                "only the request of a generation has a path on which an image is inverted.",
                hint="Try model.invert(image, prompt).",
            )
        walk = Inverse.of(self.sampler) if walk is None else walk
        latents = self.model.invert(
            image,
            prompt,
            conditions={item: None for item in self.model.adapters if item.merged_scale is None},
            steps=walk.steps,
            guidance=guidance,
            sampler=walk,
            size=(self.width, self.height),
            progress=False,
            offload=self.offload or False,
        )
        noisiest_first = walk.levels[::-1]
        return latents[[noisiest_first.index(level) for level in self.sampler.path]]
