"""How IP-Adapters are published: `image_proj.*` and `ip_adapter.N.*`."""

from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from refiners_core import Model, Seat
from refiners_core.errors import WeightsError
from refiners_core.weights import KeyMap

LAYOUT: Final = KeyMap(
    {
        "projection.proj": "image_proj.proj",
        "projection.norm": "image_proj.norm",
        "branches.{n}.project.k.to_k_ip": "ip_adapter.{n}.to_k_ip",
        "branches.{n}.project.v.to_v_ip": "ip_adapter.{n}.to_v_ip",
    }
)


def numbered(model: Model) -> dict[str, tuple[str, Seat]]:
    """Returns the published number and the seat of every attention to the text, by its path.

    Published files count all attentions, those to the image itself and those to the text in turn,
    on the way down, then on the way up, and the middle last.
    """
    seats = sorted(model.slot("unet.cross_attention.attend"), key=_published_order)
    return {seat.path: (str(2 * i + 1), seat) for i, seat in enumerate(seats)}


def _published_order(seat: Seat) -> int:
    return ("down", "up", "mid").index(seat.path.split(".")[1])


def projection_sizes(tensors: Mapping[str, Tensor], width: int) -> dict[str, Any]:
    """Returns features of the image's embedding and the number of tokens, read off shapes.

    Args:
        tensors: Published tensors.
        width: Features of a token.

    Raises:
        WeightsError: These are not the tensors of an IP-Adapter whose projection is linear.
    """
    weight = tensors.get("image_proj.proj.weight")
    if weight is None:
        is_other = any(key.startswith("image_proj.") for key in tensors)
        raise WeightsError(
            "this IP-Adapter has a projection of another kind (Plus, Full or FaceID)."
            if is_other
            else "these are not the weights of an IP-Adapter: no 'image_proj.proj.weight' there.",
            hint="Give a file such as ip-adapter_sd15.safetensors.",
        )
    return {"embedding": weight.shape[1], "tokens": weight.shape[0] // width}
