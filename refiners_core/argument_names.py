"""Recognises argument names of other libraries and suggests ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from refiners_core.errors import ArgumentError

P = ParamSpec("P")
R = TypeVar("R")

_CONDITION: Final = "conditions"
WORDS: Final[Mapping[str, str]] = {
    "num_inference_steps": "steps",
    "inference_steps": "steps",
    "num_steps": "steps",
    "sample_steps": "steps",
    "guidance_scale": "guidance",
    "cfg": "guidance",
    "cfg_scale": "guidance",
    "unconditional_guidance_scale": "guidance",
    "num_images_per_prompt": "count",
    "num_images": "count",
    "num_samples": "count",
    "n_samples": "count",
    "n_iter": "count",
    "batch_size": "count",
    "generator": "seed",
    "manual_seed": "seed",
    "height": "size",
    "width": "size",
    "target_size": "size",
    "original_size": "size",
    "resolution": "size",
    "scheduler": "sampler",
    "sampler_name": "sampler",
    "scheduler_name": "sampler",
    "negative": "negative_prompt",
    "negative_prompt_2": "negative_prompt",
    "prompt_2": "prompt",
    "text": "prompt",
    "init_image": "image",
    "init_img": "image",
    "input_image": "image",
    "mask_image": "mask",
    "denoising_strength": "strength",
    "control_image": _CONDITION,
    "controlnet_conditioning_image": _CONDITION,
    "ip_adapter_image": _CONDITION,
    "adapter_image": _CONDITION,
    "controlnet_conditioning_scale": _CONDITION,
    "adapter_conditioning_scale": _CONDITION,
    "ip_adapter_scale": _CONDITION,
    "control_guidance_start": _CONDITION,
    "control_guidance_end": _CONDITION,
    "cross_attention_kwargs": _CONDITION,
    "lora_scale": _CONDITION,
    "output_type": "output",
    "return_dict": "output",
    "callback_on_step_end": "callback",
    "callback_steps": "callback",
    "disable_progress_bar": "progress",
    "torch_dtype": "dtype",
    "precision": "dtype",
    "torch_device": "device",
    "device_map": "device",
    "local_files_only": "offline",
    "enable_model_cpu_offload": "offload",
}
"""Argument names of diffusers and web interfaces, each with our name for it."""
EXAMPLES: Final[Mapping[str, str]] = {
    "prompt": 'prompt="a red circle"',
    "negative_prompt": 'negative_prompt="blurred"',
    "steps": "steps=20",
    "guidance": "guidance=7.5",
    "timesteps": "timesteps=[999, 749, 499, 249]",
    "sigmas": "sigmas=[14.6, 2.7, 0.6, 0.0]",
    "count": "count=2",
    "seed": "seed=7",
    "size": "size=(512, 512)",
    "sampler": 'sampler="euler"',
    "image": "image=picture",
    "mask": "mask=picture",
    "strength": "strength=0.8",
    _CONDITION: "conditions={adapter: Condition(picture, scale=0.8)}",
    "output": 'output="tensor"',
    "callback": "callback=lambda step, latents: None",
    "progress": "progress=False",
    "dtype": 'dtype="float16"',
    "device": 'device="cpu"',
    "offline": "offline=True",
    "offload": "offload=True",
}
"""An example of each argument, as a caller writes it."""


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """Returns our argument for a name from another library or a misspelling.

    Args:
        word: An unknown argument, with hyphens or underscores.
        known: The names of the arguments that exist.

    Returns:
        One of `known`; None if no name comes close.

    Example:
        >>> suggestion("num-inference-steps", ["steps", "seed"])
        'steps'
    """
    word, known = word.replace("-", "_").lower(), list(known)
    ours = WORDS.get(word)
    if ours in known:
        return ours
    close = get_close_matches(word, [*known, *(w for w in WORDS if WORDS[w] in known)], n=1)
    return WORDS.get(close[0], close[0]) if close else None


def explaining(function: Callable[P, R]) -> Callable[P, R]:
    """Wraps a function so that an unknown argument raises an error that suggests ours.

    Raises:
        ArgumentError: The wrapped function was called with an unknown argument; the error is a
            `TypeError` too.
    """
    known = tuple(inspect.signature(function).parameters)

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if unknown := [name for name in kwargs if name not in known]:
            raise unknown_arguments(function.__name__, unknown, known)
        return function(*args, **kwargs)

    return checked


def unknown_arguments(function: str, unknown: Iterable[str], known: Iterable[str]) -> ArgumentError:
    """Returns the error for arguments that a function does not take.

    Args:
        function: The name of the function.
        unknown: The names that were passed.
        known: The names of the arguments that the function takes.
    """
    unknown = tuple(unknown)
    return ArgumentError(
        f"{function} does not take {' or '.join(unknown)}.",
        hint=_hint(unknown, [name for name in known if name != "self"]),
    )


def _hint(unknown: Iterable[str], known: Iterable[str]) -> str:
    known = tuple(known)
    meant = dict.fromkeys(ours for name in unknown if (ours := suggestion(name, known)))
    if meant:
        return f"Write {' and '.join(EXAMPLES.get(ours, f'{ours}=...') for ours in meant)}."
    return f"It takes {', '.join(known)}."
