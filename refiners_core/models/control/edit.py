"""The edits that add the outputs of a side network to a UNet."""

from collections.abc import Callable, Mapping

from torch import nn

from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.surgery.selection import Edit
from refiners_core.surgery.tree_index import Seat
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import (
    Distribute,
    Multiply,
    Passthrough,
    SetContext,
    Sum,
    UseContext,
    When,
)


def control_edits(
    model: LatentDiffusion,
    network: nn.Module,
    key: Callable[[str], str],
    then: Callable[[], Mapping[str, nn.Module]] = dict,
    scale: str | None = None,
) -> tuple[Edit, ...]:
    """Returns edits that run a side network before the UNet and add its outputs to it.

    The network runs if the context has `features`. Its outputs are passed on under the context keys
    of `skip.0`, `skip.1`, ... and `mid`.

    Args:
        model: The model.
        network: Returns a tuple of feature maps, the skips' first and the middle's last.
        key: Returns the context key of a name: the adapter's `context_key`.
        then: Returns the named layers that each output passes before it is added.
        scale: The context key of the adapter's scale, by which outputs are multiplied where they
            are added, so that it can differ from place to place; None for a network that scales its
            outputs itself.
    """
    skips = model.slot("unet.skip.write")
    keys = {seat.path: key(f"skip.{i}") for i, seat in enumerate(skips)}
    mid, features = key("mid"), key("features")

    def beside(inner: nn.Module, seat: Seat) -> Chain:
        write = Distribute(*map(SetContext, [*keys.values(), mid]))
        return Chain(inner, Passthrough(When(features, network=network, write=write)))

    def added(output: str) -> When:
        scaled = {} if scale is None else {"scale": Multiply(scale)}
        return When(output, control=UseContext(output), **scaled, **then())

    def with_skip(inner: nn.Module, seat: Seat) -> Sum:
        return Sum(inner, added(keys[seat.path]))

    def with_mid(inner: nn.Module, seat: Seat) -> Sum:
        return Sum(inner, added(mid))

    return (
        *model.slot("unet.input").wrap(beside, name="control"),
        *skips.wrap(with_skip, name="control"),
        *model.slot("unet.mid.output").wrap(with_mid, name="control"),
    )
