"""Turns a batch into what a UNet reads: latents and the values of its context."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from refiners_core import Adapter
from refiners_core.models.diffusion import COND, GenerationRequest, LatentDiffusion
from refiners_train.data.batch import Batch


class Conditioning:
    """Reads the examples of a batch with the frozen parts of a model and with an adapter.

    Gradients flow to the layers of the adapter alone, since all others are frozen.

    Args:
        model: The frozen base, which wears the adapter.
        adapter: The adapter.
    """

    def __init__(self, model: LatentDiffusion, adapter: Adapter) -> None:
        self.model: Final = model
        self.adapter: Final = adapter
        self.device: Final = model.unet.device
        self.dtype: Final = model.unet.dtype
        self._one: Final = torch.tensor(1.0, device=self.device, dtype=self.dtype)

    @property
    def scale(self) -> dict[str, Tensor]:
        """The context value with which the adapter acts at its full strength."""
        return {self.adapter.scale_key: self._one}

    def latents(self, batch: Batch) -> Float[Tensor, "rows channels height width"]:
        """Returns the latents of a batch, which the frozen autoencoder encodes unless given."""
        if batch.latents is not None:
            return batch.latents.to(self.dtype)
        assert batch.pictures is not None, "an example has a picture or latents"
        with torch.no_grad():
            return self.model.encode(batch.pictures).to(self.dtype)

    def latent_shape(self, batch: Batch) -> tuple[int, ...]:
        """Returns channels, height and width of the latents of a batch."""
        if batch.latents is not None:
            return tuple(batch.latents.shape[1:])
        assert batch.pictures is not None, "an example has a picture or latents"
        config = self.model.autoencoder.config
        height, width = batch.pictures.shape[-2:]
        return config.latent_channels, height // config.reduction, width // config.reduction

    def texts(
        self, texts: Sequence[str], is_dropped: Sequence[bool], scale: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """Returns the features of prompts; a dropped one is read as an empty negative prompt is.

        Args:
            texts: The prompts.
            is_dropped: Whether each prompt is left out.
            scale: The scale of the adapter; empty to read without it.
        """
        rows = ["" if gone else text for text, gone in zip(texts, is_dropped, strict=True)]
        silent = [gone and self.model.is_silent_when_empty for gone in is_dropped]
        values = self.model.read(rows, scale, is_silent=silent if any(silent) else ())
        return {key: value.to(self.dtype) for key, value in values.items()}

    def sizes(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the size ids of pictures, for a UNet that reads them."""
        if self.model.unet.config.added_cond_width is None:
            return {}
        if batch.time_ids is not None:
            return {"time_ids": batch.time_ids}
        described = self.model.describe(self.request(batch, batch.texts))
        return {name: ids.expand(len(batch), -1) for name, ids in described.items()}

    def condition(
        self, batch: Batch, texts: Sequence[str], is_dropped: Bool[Tensor, "rows"] | None
    ) -> dict[str, Tensor]:
        """Returns the context values of the conditions of the adapter.

        Args:
            batch: The batch.
            texts: Its prompts, of which some may be left out.
            is_dropped: Whether each row has the values of the unconditional branch, on the device;
                None for no row.
        """
        adapter = self.adapter
        if not (adapter.takes_condition or adapter.reads_prompts):
            return {}
        value: Any = None
        if adapter.takes_condition:
            value = batch.conditions.get("", dict(batch.conditions))
        values: dict[str, Tensor] = {}
        for key, branches in adapter.encode(value, self.request(batch, texts)).items():
            cond = self._placed(branches[COND])
            uncond = branches.get("uncond")
            if uncond is not None and is_dropped is not None:
                rows = is_dropped.view(-1, *[1] * (cond.ndim - 1))
                cond = torch.where(rows, self._placed(uncond), cond)
            values[key] = cond.expand(len(batch), *cond.shape[1:])
        return values

    def request(self, batch: Batch, texts: Sequence[str]) -> GenerationRequest:
        """Returns the request that the adapter's `encode` would get in a generation."""
        reduction = self.model.autoencoder.config.reduction
        _, height, width = self.latent_shape(batch)
        return GenerationRequest(
            model=self.model,
            count=len(batch),
            branches=("uncond", "cond"),
            height=height * reduction,
            width=width * reduction,
            latent_height=height,
            latent_width=width,
            dtype=self.dtype,
            device=self.device,
            prompts={"uncond": [""] * len(texts), "cond": [*texts]},
        )

    def _placed(self, value: Tensor) -> Tensor:
        return value.to(self.device, self.dtype if value.is_floating_point() else None)
