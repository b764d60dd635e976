"""The edits that add the outputs of a side network to a UNet."""

from collections.abc import Callable, Mapping

from torch import nn

from refiners_core.models.control.prompted import PromptedRows
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
    network: nn.Module | Callable[[Chain], nn.Module],
    key: Callable[[str], str],
    then: Callable[[], Mapping[str, nn.Module]] = dict,
    scale: str | None = None,
    *,
    prompted: str = "",
    when: str = "features",
) -> tuple[Edit, ...]:
    """Returns edits that run a side network before the UNet and add its outputs to it.

    The network runs while the context has the condition. Its outputs are passed on under the
    context keys of `skip.0`, `skip.1`, ... and `mid`; an output of None adds nothing.

    Args:
        model: The model.
        network: Returns a tuple of feature maps, the skips' first and the middle's last; or a
            function that wires such a network around layers of the UNet that it is given.
        key: Returns the context key of a name: the adapter's `context_key`.
        then: Returns the named layers that each output passes before it is added.
        scale: The context key of the adapter's scale, by which outputs are multiplied where they
            are added, so that it can differ from place to place; None for a network that scales its
            outputs itself.
        prompted: The context key that limits the network to the branches that read the prompt, as
            `PromptedRows` does; empty for a network that always steers all of them.
        when: The name of the condition, whose context key `key` returns.
    """
    skips = model.slot("unet.skip.write")
    keys = {seat.path: key(f"skip.{i}") for i, seat in enumerate(skips)}
    mid, condition = key("mid"), key(when)

    def beside(inner: nn.Module, seat: Seat) -> Chain:
        outputs = [*keys.values(), mid]
        side = network if isinstance(network, nn.Module) else network(seat.chain)
        if prompted:
            side = PromptedRows(prompted, len(outputs), rows=side)
        write = Distribute(*map(SetContext, outputs))
        return Chain(inner, Passthrough(When(condition, network=side, write=write)))

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
