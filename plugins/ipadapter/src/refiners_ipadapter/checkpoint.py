"""The keys of published IP-Adapters: `image_proj.*` and `ip_adapter.N.*`."""

from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from refiners_core.errors import WeightsError
from refiners_core.models.image_prompt import IMAGE_ATTENTION_KEYS
from refiners_core.weights import KeyMap

IP_ADAPTER_KEYS: Final = KeyMap(
    {
        "projection.proj": "image_proj.proj",
        "projection.norm": "image_proj.norm",
    }
) | IMAGE_ATTENTION_KEYS.under("branches", "ip_adapter")


def projection_sizes(tensors: Mapping[str, Tensor], width: int) -> dict[str, Any]:
    """Returns the width of the image embedding and the number of tokens, read off shapes.

    Args:
        tensors: Published tensors.
        width: Features of a token.

    Raises:
        WeightsError: The tensors are not those of an IP-Adapter with a linear projection.
    """
    weight = tensors.get("image_proj.proj.weight")
    if weight is None:
        has_other_projection = any(key.startswith("image_proj.") for key in tensors)
        raise WeightsError(
            "this IP-Adapter has a projection of another kind (Plus, Full or FaceID)."
            if has_other_projection
            else "these are not the weights of an IP-Adapter: 'image_proj.proj.weight' is missing.",
            hint="Give a file such as ip-adapter_sd15.safetensors.",
        )
    return {"embedding": weight.shape[1], "tokens": weight.shape[0] // width}
