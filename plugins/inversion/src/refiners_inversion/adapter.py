"""DDIM inversion: a generation begins from the noise that leads to a picture."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core import Adapter, Context, Edit, Layer
from refiners_core.errors import AdapterError, ConditionError
from refiners_core.models.diffusion import COND, GenerationRequest, LatentDiffusion
from refiners_core.models.samplers import Inverse, Sampler
from refiners_core.option import number
from refiners_core.picture import to_rows


class DdimInversion(Adapter):
    """Begins a generation from the noise that leads to a picture (arXiv:2010.02502, section 4.3).

    The condition is a picture, or one for each generated picture; or a mapping of `picture` and
    `prompt`, a text that describes it. The picture is walked back through the noise levels of the
    generation. With the same prompt and `guidance=1` the generation leads to it again; with another
    prompt it edits the picture. With `Condition(start=0.4)` it begins anew at that share of the
    steps, with the latents of the picture at that level: the more steps are left out, the closer
    the result stays. At scale s the noise is `s inverted + sqrt(1 - s^2) drawn`, so that seeds vary
    the picture.

    On the way back no other adapter acts, except merged ones.

    Args:
        prompt: The text that describes the picture, where the condition has none.
        guidance: The scale of guidance on the way back. 1, no guidance, leads back best.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: `prompt` is not a text, or `guidance` is not a number from 0 on.

    Example:
        >>> DdimInversion(name="ddim-inversion").optional_inputs
        ('picture', 'prompt')
    """

    takes_condition: ClassVar[bool] = True
    optional_inputs: ClassVar[tuple[str, ...]] = ("picture", "prompt")

    def __init__(self, *, prompt: str = "", guidance: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        if not isinstance(prompt, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise AdapterError(
                f"the prompt of an inversion is a text, not a {type(prompt).__name__}.",
                hint='Try prompt="a red circle", or "prompt" beside "picture" in the condition.',
            )
        self.prompt: Final = prompt
        self.guidance: Final = number("guidance", guidance, 1.0, low=0)
        self.path_key: Final = self.context_key("path")

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Replaces the latents before the first step in which it acts."""
        begin = Begin(self.scale_key, self.path_key)
        return model.slot("denoise.branches").before("begin", lambda seat: begin)

    def walk(self, sampler: Sampler) -> Inverse:
        """Returns the sampler of the way back.

        Args:
            sampler: The sampler of the generation.
        """
        return Inverse.of(sampler)

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses what is not a picture.

        Raises:
            ConditionError: The value has no picture, or neither one nor as many as are generated.
        """
        self._read(value, request)
        if request.sampler is not None:
            self.walk(request.sampler)

    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        """Walks each picture back through the levels of the generation.

        Args:
            value: The pictures, and the text that describes each.
            request: The generation.
        """
        walk = None if request.sampler is None else self.walk(request.sampler)
        paths = [
            request.invert(picture, prompt, guidance=self.guidance, walk=walk)
            for picture, prompt in self._read(value, request)
        ]
        return {self.path_key: {COND: torch.stack(paths)}}

    def _read(self, value: Any, request: GenerationRequest) -> list[tuple[Tensor, str]]:
        inputs: Mapping[str, Any] = value if isinstance(value, Mapping) else {"picture": value}
        if unknown := [str(name) for name in inputs if name not in self.optional_inputs]:
            raise ConditionError(
                f"{self.key} takes picture and prompt, not {', '.join(unknown)}.",
                hint='Try {"picture": picture, "prompt": "a red circle"}.',
            )
        if inputs.get("picture") is None:
            raise ConditionError(
                f"{self.key} is given no picture.",
                hint='Try {"picture": picture, "prompt": "a red circle"}.',
            )
        pictures = to_rows(inputs["picture"])
        prompt = inputs.get("prompt", self.prompt)
        prompts = [prompt] if isinstance(prompt, str) else prompt
        is_texts = isinstance(prompts, list | tuple)
        if not is_texts or not all(isinstance(text, str) for text in prompts):
            raise ConditionError(
                f"the prompt of {self.key} is a text, or one for each picture, not a "
                f"{type(prompt).__name__}.",
                hint='Try {"picture": picture, "prompt": "a red circle"}.',
            )
        rows = max(len(pictures), len(prompts))
        if rows not in (1, request.count) or {len(pictures), len(prompts)} - {1, rows}:
            raise ConditionError(
                f"{self.key} is given {len(pictures)} pictures and {len(prompts)} prompts to "
                f"generate {request.count}.",
                hint="Pass one, or one per generated picture.",
            )
        whole = [each * (rows // len(each)) for each in (pictures, [*prompts])]
        return [*zip(*whole, strict=True)]  # pyright: ignore[reportReturnType]


class Begin(Layer):
    """Replaces the latents at the first step in which the adapter acts.

    What the sampler kept of earlier steps is dropped with the latents that they led to.

    Args:
        scale: The context key of the scale.
        path: The context key of the latents at each level, (rows, levels, channels, height, width),
            noisiest first.
    """

    def __init__(self, scale: str, path: str) -> None:
        super().__init__()
        self.scale: Final = scale
        self.path: Final = path

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "count channels height width"]:
        latents, scale = inputs[0], context.get(self.scale)
        if scale is None or self.path in context.memory:
            return latents
        context.memory[self.path] = True
        path: Tensor = context["conditions"][self.path][COND]
        inverted = path[:, context["step"]].expand_as(latents)
        drawn = (1 - scale.float().square()).clamp(min=0).sqrt().to(latents.dtype)
        begun = scale * inverted + drawn * latents
        context["latents"], context["past"] = begun, ()
        return begun

    def extra_repr(self) -> str:
        return repr(self.path)
