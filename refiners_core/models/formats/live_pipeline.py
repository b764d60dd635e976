"""The state of a living pipeline that none of its tensors shows.

`check_part` is the table of it. What it lets pass changes nothing of what is computed: slices of an
autoencoder and of attention, feeding forward in parts, checkpoints for training, compiled calls,
fused projections whose weights are those they were made of. Tiles of an autoencoder are followed.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from refiners_core.errors import ModelError
from refiners_core.tree.layer import CALL_HOOKS

PROCESSORS: Final = frozenset(
    (
        *("AttnProcessor", "AttnProcessor2_0", "XFormersAttnProcessor", "SlicedAttnProcessor"),
        *("FusedAttnProcessor2_0", "AttnProcessorNPU", "XLAFlashAttnProcessor2_0"),
    )
)
"""The attention processors of diffusers that compute plain attention, each in its own way."""
_HOMES: Final = ("torch.nn.", "diffusers.", "transformers.")
"""Where the classes of a pipeline's layers come from, if nobody has exchanged them."""
_LAYERS_OF_ADAPTERS: Final = "peft."
"""Those show in the names of tensors, and are refused by them."""
_FREEU: Final = ("s1", "s2", "b1", "b2")


class UnsupportedState(NamedTuple):
    """What of a part's state changes what it computes, and how to undo it."""

    fact: str
    hint: str


def unwrapped(part: Any) -> Any:
    """Returns the module in what `torch.compile` or data parallelism has put around it."""
    while isinstance(part, nn.Module):
        inner = part._modules.get("_orig_mod")
        if inner is None and type(part).__name__ in ("DataParallel", "DistributedDataParallel"):
            inner = part._modules.get("module")
        if inner is None:
            break
        part = inner
    return part


def tensors_of(part: nn.Module) -> dict[str, Tensor]:
    """Returns the tensors of a part by their published names, the very ones.

    Compiled blocks inside count as what they are, and what fused projections hold twice counts
    once.

    Raises:
        ModelError: Fused projections have other weights than those they were made of.
    """
    state = part.state_dict(keep_vars=True)
    tensors = {key.replace("_orig_mod.", ""): tensor for key, tensor in state.items()}
    for key in [key for key in tensors if ".to_qkv." in key or ".to_kv." in key]:
        fused = tensors.pop(key)
        place, fusion, kind = key.rsplit(".", 2)
        names = [f"{place}.to_{letter}.{kind}" for letter in fusion.removeprefix("to_")]
        if not all(name in tensors for name in names) or not torch.equal(
            fused, torch.cat([tensors[name] for name in names])
        ):
            raise ModelError(
                f"{place} of this pipeline has fused projections with weights of their own.",
                hint="Call pipe.unfuse_qkv_projections() before it is trained.",
            )
    return tensors


def check_part(name: str, part: nn.Module) -> None:
    """Makes sure that a part computes what its configuration and its tensors say.

    Args:
        name: What the part is called in the pipeline.
        part: The part, unwrapped.

    Raises:
        ModelError: Its state changes what it computes; the state is named.
    """
    for path, layer in part.named_modules():
        if "_orig_mod" in layer._modules:
            continue  # what torch.compile puts around a block
        for fault in _faults(name, path, layer):
            place = f"{name}.{path}" if path else name
            raise ModelError(f"{place} of this pipeline {fault.fact}.", hint=fault.hint)


def _faults(name: str, path: str, layer: nn.Module) -> Iterator[UnsupportedState]:
    own = layer.__dict__
    kind = type(layer)
    if "_hf_hook" in own:
        yield UnsupportedState(
            "is offloaded by accelerate", "Load the pipeline without offloading."
        )
    if (registry := own.get("_diffusers_hook")) is not None:
        hooks = ", ".join(getattr(registry, "hooks", {})) or type(registry).__name__
        yield UnsupportedState(
            f"has hooks of diffusers ({hooks})", "Load the pipeline without them."
        )
    if "forward" in own:
        yield UnsupportedState(
            "has another forward() than its class", "Undo what patches it, or load it again."
        )
    hooks = [hook for name in CALL_HOOKS for hook in (own.get(name) or {}).values()]
    # Those of transformers keep the features of each layer for whoever asks for them.
    if hooks := [it for it in hooks if not str(it.__module__).startswith("transformers.")]:
        yield UnsupportedState(
            f"has a hook on its calls ({getattr(hooks[0], '__qualname__', hooks[0])})",
            "Remove the hook: call remove() on what register_forward_hook() returned.",
        )
    home = f"{kind.__module__}."
    if not home.startswith((*_HOMES, _LAYERS_OF_ADAPTERS)) and home != "torch.nn.":
        yield UnsupportedState(
            f"is a layer of {home}{kind.__name__}, which is quantised or patched",
            "Load the pipeline without quantisation, then quantise the model: its layers are "
            "those of torch.nn.",
        )
    for tensor in (*own["_parameters"].values(), *own["_buffers"].values()):
        if tensor is not None and is_packed(tensor):
            yield UnsupportedState(
                f"has weights of {tensor.dtype}, for which torch has no arithmetic",
                f"Widen them first: pipe.{name}.to(torch.bfloat16).",
            )
    if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
        yield UnsupportedState(
            f"pads its maps with {layer.padding_mode!r}", 'Set its padding_mode to "zeros" first.'
        )
    if all(own.get(key) is not None for key in _FREEU):
        yield UnsupportedState("has FreeU on", "Call pipe.disable_freeu() first.")
    processor = own.get("processor")
    if processor is not None and not _is_plain(processor):
        yield UnsupportedState(
            f"attends by a {type(processor).__name__}",
            "Call pipe.unload_ip_adapter(), or pipe.unet.set_default_attn_processor(), first.",
        )
    if path == "" and own["_modules"].get("encoder_hid_proj") is not None:
        yield UnsupportedState("wears an IP-Adapter", "Call pipe.unload_ip_adapter() first.")


def is_packed(tensor: Tensor) -> bool:
    """Whether a tensor has floating-point numbers of less than two bytes, or none at all."""
    return tensor.is_floating_point() and tensor.element_size() < 2


def _is_plain(processor: Any) -> bool:
    kind = type(processor)
    is_theirs = kind.__module__.startswith("diffusers.")
    if isinstance(processor, nn.Module) and next(processor.parameters(), None) is not None:
        return True  # their tensors tell
    return is_theirs and kind.__name__ in PROCESSORS


def tiles(part: Any) -> bool:
    """Whether a living autoencoder decodes large pictures in tiles."""
    return bool(part.__dict__.get("use_tiling"))
