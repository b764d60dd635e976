"""StyleAligned: gives the pictures of a batch the style of the first."""

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from torch import Tensor, nn

from refiners_core import Adapter, Chain, Edit, Seat
from refiners_core.errors import ConditionError
from refiners_core.models.diffusion import GenerationRequest, LatentDiffusion
from refiners_core.option import number
from refiners_core.picture import to_rows
from refiners_stylealigned.attention import SharedAttention
from refiners_stylealigned.pin import Pin


class StyleAligned(Adapter):
    """Gives all pictures of a batch the style of the first one (arXiv:2312.02133).

    In every self-attention, the other pictures also attend to the first. The first picture is bit
    for bit the same as without the adapter. Nothing is trained.

    A condition is optional: a picture whose style the others take (section 4.2). It is inverted to
    the noise that leads to it, by the first prompt, which should describe it; at each step the
    latents of the first picture are those of the inversion, so it becomes the given picture again.

    Three numbers control how much style is shared. `Condition(scale=...)` interpolates between the
    plain attention (0, which skips the adapter) and the shared one (1). `share` and `shift` change
    the shared attention itself: how much the others attend to the first picture.

    Args:
        share: A factor of the first picture's keys in the attention of the others
            (`shared_score_scale` in the authors' code): above 1 sharpens it, 0 makes it uniform.
        shift: A term added to the logits of the first picture's keys before the softmax
            (`shared_score_shift`): above 0 the others attend to the first picture more, below 0
            less.
        inversion_guidance: The scale of guidance with which a given picture is inverted, as in the
            authors' code. Nearer to 1 the way back is more exact.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: A number is not finite, or `inversion_guidance` is negative.

    Example:
        >>> StyleAligned(name="style-aligned", shift=1).shift
        1.0
    """

    takes_condition: ClassVar[bool] = True
    needs_condition: ClassVar[bool] = False

    def __init__(
        self,
        *,
        share: float = 1.0,
        shift: float = 0.0,
        inversion_guidance: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.share: Final = number("share", share, 1.0)
        self.shift: Final = number("shift", shift, 0.0)
        self.inversion_guidance: Final = number(
            "inversion_guidance", inversion_guidance, 2.0, low=0
        )
        self.path_key: Final = self.context_key("path")

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Lets every self-attention also attend to the first picture of its guidance branch, and
        keeps that picture on the path of a given one."""
        path = self.path_key

        def shared(inner: nn.Module, seat: Seat) -> nn.Module:
            return SharedAttention(self.scale_key, self.share, self.shift, inner)

        def followed(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(inner, Pin(path, is_after=True))

        attention = model.slot("unet.self_attention.attend")
        return (
            *attention.wrap(shared, name="shared", stage="inputs"),
            *model.slot("denoise.branches").before("pin", lambda _: Pin(path, is_after=False)),
            *model.slot("denoise.step").wrap(followed, name="pin", stage="output"),
        )

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses a batch of one picture, which has nothing to share, and several references.

        Raises:
            ConditionError: The generation makes one picture, or the value is not one picture.
        """
        if request.count < 2:
            raise ConditionError(
                f"{self.key} shares the style of the first picture with the others, but this "
                "generation makes only one.",
                hint='Pass several prompts, ["a cat", "a dog"], or count=2; conditions={adapter: '
                "None} skips the adapter.",
            )
        if value is not None and (pictures := len(to_rows(value))) != 1:
            raise ConditionError(
                f"{self.key} takes the style of one picture, but is given {pictures}.",
                hint="Pass one of them.",
            )

    def encode(self, value: Any, request: GenerationRequest) -> dict[str, dict[str, Tensor]]:
        """Inverts a picture to its latents at each noise level of the generation.

        Args:
            value: The picture.
            request: The generation; the first prompt describes the picture.
        """
        path = request.invert(value, request.prompts["cond"][0], guidance=self.inversion_guidance)
        return {self.path_key: {"cond": path[None]}}
