"""The state of a loaded pipeline that its tensors do not show.

`check_part` refuses state that changes results. It lets pass: slicing of autoencoder and attention,
chunked feed-forward, gradient checkpoints, compiled calls, and fused projections whose weights are
those of their parts. Tiling of the autoencoder is taken over.
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
"""The attention processors of diffusers that compute plain attention."""
_PACKAGES: Final = ("torch.nn.", "diffusers.", "transformers.")
"""The packages of a pipeline's layers, unless they were replaced."""
_LAYERS_OF_ADAPTERS: Final = "peft."
"""The package of LoRA layers, which are refused by the names of their tensors."""
_FREEU: Final = ("s1", "s2", "b1", "b2")


class UnsupportedState(NamedTuple):
    """A state of a part that changes its results."""

    fact: str
    """The state, as a predicate of the part."""
    hint: str
    """How to undo the state."""


def unwrapped(part: Any) -> Any:
    """Returns the module inside the wrappers of `torch.compile` or data parallelism."""
    while isinstance(part, nn.Module):
        inner = part._modules.get("_orig_mod")
        if inner is None and type(part).__name__ in ("DataParallel", "DistributedDataParallel"):
            inner = part._modules.get("module")
        if inner is None:
            break
        part = inner
    return part


def tensors_of(part: nn.Module) -> dict[str, Tensor]:
    """Returns the tensors of a part by their published names, without copying them.

    The names of compiled blocks are those of the blocks, and fused projections are left out.

    Raises:
        ModelError: The weights of fused projections differ from those of their parts.
    """
    state = part.state_dict(keep_vars=True)
    tensors = {key.replace("_orig_mod.", ""): tensor for key, tensor in state.items()}
    for key in [key for key in tensors if ".to_qkv." in key or ".to_kv." in key]:
        fused = tensors.pop(key)
        path, fusion, kind = key.rsplit(".", 2)
        names = [f"{path}.to_{letter}.{kind}" for letter in fusion.removeprefix("to_")]
        if not all(name in tensors for name in names) or not torch.equal(
            fused, torch.cat([tensors[name] for name in names])
        ):
            raise ModelError(
                f"{path} of this pipeline has fused projections that differ from their parts.",
                hint="Call pipe.unfuse_qkv_projections() before it is trained.",
            )
    return tensors


def check_part(name: str, part: nn.Module) -> None:
    """Checks that the results of a part follow from its configuration and its tensors alone.

    Args:
        name: The name of the part in the pipeline.
        part: The part, unwrapped.

    Raises:
        ModelError: The part has a state that changes its results; the error names it.
    """
    for path, layer in part.named_modules():
        if "_orig_mod" in layer._modules:
            continue  # the wrapper that torch.compile puts around a block
        for state in _unsupported(name, path, layer):
            full_path = f"{name}.{path}" if path else name
            raise ModelError(f"{full_path} of this pipeline {state.fact}.", hint=state.hint)


def _unsupported(name: str, path: str, layer: nn.Module) -> Iterator[UnsupportedState]:
    state = layer.__dict__
    kind = type(layer)
    if "_hf_hook" in state:
        yield UnsupportedState(
            "is offloaded by accelerate", "Load the pipeline without offloading."
        )
    if (registry := state.get("_diffusers_hook")) is not None:
        hooks = ", ".join(getattr(registry, "hooks", {})) or type(registry).__name__
        yield UnsupportedState(
            f"has hooks of diffusers ({hooks})", "Load the pipeline without them."
        )
    if "forward" in state:
        yield UnsupportedState(
            "has another forward() than its class", "Undo the patch, or load the pipeline again."
        )
    hooks = [hook for key in CALL_HOOKS for hook in (state.get(key) or {}).values()]
    # Hooks of transformers only record the features of layers.
    if hooks := [hook for hook in hooks if not str(hook.__module__).startswith("transformers.")]:
        yield UnsupportedState(
            f"has a hook on its calls ({getattr(hooks[0], '__qualname__', hooks[0])})",
            "Remove the hook: call remove() on what register_forward_hook() returned.",
        )
    package = f"{kind.__module__}."
    if not package.startswith((*_PACKAGES, _LAYERS_OF_ADAPTERS)) and package != "torch.nn.":
        yield UnsupportedState(
            f"is a layer of {package}{kind.__name__}, which is quantised or patched",
            "Load the pipeline without quantisation, then quantise the model: its layers are "
            "those of torch.nn.",
        )
    for tensor in (*state["_parameters"].values(), *state["_buffers"].values()):
        if tensor is not None and is_packed(tensor):
            yield UnsupportedState(
                f"has weights of {tensor.dtype}, for which torch has no arithmetic",
                f"Widen them first: pipe.{name}.to(torch.bfloat16).",
            )
    if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
        yield UnsupportedState(
            f"pads feature maps with {layer.padding_mode!r}",
            'Set its padding_mode to "zeros" first.',
        )
    if all(state.get(key) is not None for key in _FREEU):
        yield UnsupportedState("has FreeU on", "Call pipe.disable_freeu() first.")
    processor = state.get("processor")
    if processor is not None and not _is_plain(processor):
        yield UnsupportedState(
            f"has the attention processor {type(processor).__name__}",
            "Call pipe.unload_ip_adapter(), or pipe.unet.set_default_attn_processor(), first.",
        )
    if path == "" and state["_modules"].get("encoder_hid_proj") is not None:
        yield UnsupportedState("has an IP-Adapter loaded", "Call pipe.unload_ip_adapter() first.")


def is_packed(tensor: Tensor) -> bool:
    """Whether a tensor has floating-point numbers of less than two bytes."""
    return tensor.is_floating_point() and tensor.element_size() < 2


def _is_plain(processor: Any) -> bool:
    kind = type(processor)
    is_theirs = kind.__module__.startswith("diffusers.")
    if isinstance(processor, nn.Module) and next(processor.parameters(), None) is not None:
        return True  # the names of its tensors are refused instead
    return is_theirs and kind.__name__ in PROCESSORS


def tiles(part: Any) -> bool:
    """Whether a loaded autoencoder decodes large images in tiles."""
    return bool(part.__dict__.get("use_tiling"))
