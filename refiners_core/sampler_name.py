"""The names of the samplers, apart from their code, so that manifests are checked without torch."""

from typing import Final

SAMPLER_NAMES: Final = (
    "ddim",
    "euler",
    "euler-ancestral",
    "dpm++-2m",
    "dpm++-2m-sde",
    "lcm",
    "tcd",
)
"""The names that `generate(sampler=...)` takes, in the order of the guide."""
