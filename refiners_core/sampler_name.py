"""The names of samplers: ours, those of web interfaces, and the classes of diffusers.

They are apart from the code of samplers, so that they are listed and checked without torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, Literal

TimestepSpacing = Literal["leading", "linspace", "trailing", "sgm-uniform"]
"""Spacings of training steps: those of arXiv:2305.08891, table 2, and `sgm-uniform`, which divides
the way from the last training step to the first into equal steps and leaves out its end."""
SigmaSpacing = Literal["karras", "exponential", "beta"]
"""Spacings of sigma: arXiv:2206.00364, equation 5; evenly in its logarithm; and the quantiles of a
beta distribution (arXiv:2407.12173)."""
Spacing = Literal[TimestepSpacing, SigmaSpacing]
"""The levels that a sampler visits."""


@dataclass(frozen=True)
class SamplerName:
    """A sampler that `generate` takes by name."""

    name: str
    """Its name in `generate(sampler=...)`."""
    aliases: tuple[str, ...]
    """Its names in A1111's and ComfyUI's interfaces; case and separators do not matter."""
    scheduler: str
    """The class of diffusers whose settings of a published file it follows."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    """Settings that the name fixes, as they are published."""
    is_borrowed: bool = False
    """Whether diffusers lacks the sampler, so that it visits the levels of that class."""


def _two_m(algorithm: str) -> Mapping[str, Any]:
    return {"algorithm_type": algorithm, "solver_order": 2, "solver_type": "midpoint"}


_EULER, _SOLVER = "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"
NAMES: Final[tuple[SamplerName, ...]] = (
    SamplerName("ddim", ("DDIM",), "DDIMScheduler"),
    SamplerName("euler", ("Euler",), _EULER),
    SamplerName(
        "euler-ancestral",
        ("Euler a", "euler_ancestral"),
        "EulerAncestralDiscreteScheduler",
    ),
    SamplerName("heun", ("Heun",), "HeunDiscreteScheduler"),
    SamplerName("dpm2", ("DPM2", "dpm_2"), "KDPM2DiscreteScheduler"),
    SamplerName(
        "dpm2-ancestral",
        ("DPM2 a", "dpm_2_ancestral"),
        "KDPM2AncestralDiscreteScheduler",
    ),
    SamplerName("lms", ("LMS",), "LMSDiscreteScheduler"),
    SamplerName("dpm++-2m", ("DPM++ 2M", "dpmpp_2m"), _SOLVER, _two_m("dpmsolver++")),
    SamplerName(
        "dpm++-2m-sde",
        ("DPM++ 2M SDE", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu"),
        _SOLVER,
        _two_m("sde-dpmsolver++"),
    ),
    SamplerName(
        "dpm++-3m-sde",
        ("DPM++ 3M SDE", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu"),
        _SOLVER,
        _two_m("sde-dpmsolver++"),
        is_borrowed=True,
    ),
    SamplerName("dpm++-sde", ("DPM++ SDE", "dpmpp_sde", "dpmpp_sde_gpu"), "DPMSolverSDEScheduler"),
    SamplerName("unipc", ("UniPC", "uni_pc", "uni_pc_bh2"), "UniPCMultistepScheduler"),
    SamplerName("deis", ("DEIS",), "DEISMultistepScheduler"),
    SamplerName("pndm", ("PNDM",), "PNDMScheduler"),
    SamplerName("plms", ("PLMS",), "PNDMScheduler", {"skip_prk_steps": True}),
    SamplerName("ddpm", ("DDPM",), "DDPMScheduler"),
    SamplerName("restart", ("Restart",), _EULER, is_borrowed=True),
    SamplerName("lcm", ("LCM",), "LCMScheduler"),
    SamplerName("tcd", ("TCD",), "TCDScheduler"),
)
"""The samplers that `generate` takes by name."""
SAMPLER_NAMES: Final = tuple(entry.name for entry in NAMES)
"""Our names of samplers, in the order of the guide."""

SPACING_NAMES: Final[Mapping[Spacing, tuple[str, ...]]] = {
    "linspace": ("Uniform", "normal"),
    "leading": ("DDIM", "ddim_uniform"),
    "trailing": ("Simple",),
    "karras": ("Karras",),
    "exponential": ("Exponential",),
    "beta": ("Beta",),
    "sgm-uniform": ("SGM Uniform", "sgm_uniform"),
}
"""The spacings that may follow a name, with their names in A1111's and ComfyUI's interfaces."""


@dataclass(frozen=True)
class SamplerRequest:
    """The parts of a name: the sampler, and the spacing."""

    scheduler: str
    """The class of diffusers whose settings it follows."""
    entry: SamplerName | None
    """Its entry; None for a class of diffusers, which takes all its settings from the file."""
    spacing: Spacing | None
    """The spacing that followed the name."""


def find_name(text: str) -> SamplerRequest | None:
    """Returns the sampler, and the spacing, that a name asks for; None for an unknown name.

    Example:
        >>> request = find_name("DPM++ 2M Karras")
        >>> request.entry.name, request.spacing
        ('dpm++-2m', 'karras')
    """
    words = _plain(text)
    for ending, spacing in _ENDINGS:
        start = words.removesuffix(ending)
        if start == words and ending:
            continue
        if start in _ENTRIES:
            return SamplerRequest(_ENTRIES[start].scheduler, _ENTRIES[start], spacing)
        if start in _SCHEDULERS:
            return SamplerRequest(_SCHEDULERS[start], None, spacing)
    return None


def nearest_name(text: str) -> str:
    """Returns the name of the sampler whose names come closest to a text; the first one if none."""
    words = _plain(text)
    known = {**{key: entry.name for key, entry in _ENTRIES.items()}, **_SCHEDULERS}
    for ending, spacing in _ENDINGS[2:]:
        known |= {f"{key}{ending}": f"{entry.name}-{spacing}" for key, entry in _ENTRIES.items()}
    close = get_close_matches(words, known, n=1, cutoff=0.7)
    return known[close[0]] if close else NAMES[0].name


def _plain(text: str) -> str:
    """Returns a name without what does not matter: case and separators."""
    text = text.lower().replace("++", "pp")
    return " ".join("".join(sign if sign.isalnum() else " " for sign in text).split())


_ENTRIES: Final = {_plain(name): entry for entry in NAMES for name in (entry.name, *entry.aliases)}
_SCHEDULERS: Final = {entry.scheduler.lower(): entry.scheduler for entry in NAMES}
"""The classes of diffusers, which are names as well."""
_ENDINGS: Final[tuple[tuple[str, Spacing | None], ...]] = (
    ("", None),
    (" automatic", None),
    *(
        (f" {_plain(name)}", spacing)
        for spacing, names in SPACING_NAMES.items()
        for name in (spacing, *names)
    ),
)
"""How a name may end, and the spacing that this asks for."""
