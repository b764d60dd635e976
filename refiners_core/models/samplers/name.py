"""The names of samplers: ours, those of web interfaces, and the classes of diffusers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

from refiners_core.models.samplers.consistency import LCM, TCD
from refiners_core.models.samplers.ddim import DDIM
from refiners_core.models.samplers.ddpm import DDPM
from refiners_core.models.samplers.deis import DEIS
from refiners_core.models.samplers.dpm import DPM2M, DPM2MSDE, DPM3MSDE
from refiners_core.models.samplers.dpm_sde import DPMSDE
from refiners_core.models.samplers.euler import Euler, EulerAncestral
from refiners_core.models.samplers.heun import Heun
from refiners_core.models.samplers.kdpm2 import KDPM2, KDPM2Ancestral
from refiners_core.models.samplers.lms import LMS
from refiners_core.models.samplers.pndm import PLMS, PNDM
from refiners_core.models.samplers.restart import Restart
from refiners_core.models.samplers.sampler import Sampler
from refiners_core.models.samplers.spacing import Spacing
from refiners_core.models.samplers.unipc import UniPC


@dataclass(frozen=True)
class SamplerName:
    """A sampler that can be asked for by name."""

    name: str
    """Its name in `generate(sampler=...)`."""
    kind: type[Sampler]
    """Its class."""
    aliases: tuple[str, ...]
    """Its names in A1111's and ComfyUI's interfaces; case and separators do not matter."""
    scheduler: str
    """The class of diffusers whose settings of a published file it follows."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    """Settings that the name fixes, as they are published."""
    has_its_levels_only: bool = False
    """Whether the class of diffusers is another sampler, whose levels this one visits."""


def _two_m(algorithm: str) -> Mapping[str, Any]:
    return {"algorithm_type": algorithm, "solver_order": 2, "solver_type": "midpoint"}


_EULER, _SOLVER = "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"
NAMES: Final[tuple[SamplerName, ...]] = (
    SamplerName("ddim", DDIM, ("DDIM",), "DDIMScheduler"),
    SamplerName("euler", Euler, ("Euler",), _EULER),
    SamplerName(
        "euler-ancestral",
        EulerAncestral,
        ("Euler a", "euler_ancestral"),
        "EulerAncestralDiscreteScheduler",
    ),
    SamplerName("heun", Heun, ("Heun",), "HeunDiscreteScheduler"),
    SamplerName("dpm2", KDPM2, ("DPM2", "dpm_2"), "KDPM2DiscreteScheduler"),
    SamplerName(
        "dpm2-ancestral",
        KDPM2Ancestral,
        ("DPM2 a", "dpm_2_ancestral"),
        "KDPM2AncestralDiscreteScheduler",
    ),
    SamplerName("lms", LMS, ("LMS",), "LMSDiscreteScheduler"),
    SamplerName("dpm++-2m", DPM2M, ("DPM++ 2M", "dpmpp_2m"), _SOLVER, _two_m("dpmsolver++")),
    SamplerName(
        "dpm++-2m-sde",
        DPM2MSDE,
        ("DPM++ 2M SDE", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu"),
        _SOLVER,
        _two_m("sde-dpmsolver++"),
    ),
    SamplerName(
        "dpm++-3m-sde",
        DPM3MSDE,
        ("DPM++ 3M SDE", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu"),
        _SOLVER,
        _two_m("sde-dpmsolver++"),
        has_its_levels_only=True,
    ),
    SamplerName(
        "dpm++-sde", DPMSDE, ("DPM++ SDE", "dpmpp_sde", "dpmpp_sde_gpu"), "DPMSolverSDEScheduler"
    ),
    SamplerName("unipc", UniPC, ("UniPC", "uni_pc", "uni_pc_bh2"), "UniPCMultistepScheduler"),
    SamplerName("deis", DEIS, ("DEIS",), "DEISMultistepScheduler"),
    SamplerName("pndm", PNDM, ("PNDM",), "PNDMScheduler"),
    SamplerName("plms", PLMS, ("PLMS",), "PNDMScheduler", {"skip_prk_steps": True}),
    SamplerName("ddpm", DDPM, ("DDPM",), "DDPMScheduler"),
    SamplerName("restart", Restart, ("Restart",), _EULER, has_its_levels_only=True),
    SamplerName("lcm", LCM, ("LCM",), "LCMScheduler"),
    SamplerName("tcd", TCD, ("TCD",), "TCDScheduler"),
)
"""The samplers that can be asked for by name."""

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
class Asked:
    """A sampler as it was asked for by name."""

    scheduler: str
    """The class of diffusers whose settings it follows."""
    entry: SamplerName | None
    """Its entry; None for a class of diffusers, which takes all its settings from the file."""
    spacing: Spacing | None
    """The spacing that followed the name."""


def find_name(text: str) -> Asked | None:
    """Returns the sampler, and the spacing, that a name asks for; None for an unknown name.

    Example:
        >>> found = find_name("DPM++ 2M Karras")
        >>> found.entry.name, found.spacing
        ('dpm++-2m', 'karras')
    """
    words = _plain(text)
    for ending, spacing in _ENDINGS:
        start = words.removesuffix(ending)
        if start == words and ending:
            continue
        if start in _ENTRIES:
            return Asked(_ENTRIES[start].scheduler, _ENTRIES[start], spacing)
        if start in _SCHEDULERS:
            return Asked(_SCHEDULERS[start], None, spacing)
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
