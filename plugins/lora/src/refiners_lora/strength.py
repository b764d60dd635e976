"""The alphas of the layers of a file: by their keys, PEFT's configuration and kohya's metadata."""

from collections.abc import Sequence

from refiners_core.errors import WeightsError
from refiners_lora.alpha import Alphas
from refiners_lora.language_name import LANGUAGE_PART
from refiners_lora.layer_name import Place
from refiners_lora.lora_file import LoraFile, Module
from refiners_lora.match_check import Match
from refiners_lora.method.decomposed import MAGNITUDES
from refiners_lora.method.kronecker import Kronecker
from refiners_lora.method.rotation import Rotation


def alphas_of(file: LoraFile, matches: Sequence[Match]) -> list[float | None]:
    """Returns the alpha of each matched layer, to be divided by its rank; None for the rank.

    The key of the layer goes before PEFT's configuration. An alpha is never taken from another
    layer. A trained scalar multiplies it.

    Raises:
        WeightsError: The configuration has a field of the wrong type, or is that of a DoRA, but
            the magnitudes are missing.
    """
    names: dict[str, list[str]] = {}
    for place, module in matches:
        names.setdefault(place.part, []).append(_name(place, module))
    is_of_parts = any("." in field for field in file.config)
    configured = {
        part: Alphas(
            {
                field.removeprefix(f"{part}."): value
                for field, value in file.config.items()
                if not is_of_parts or field.startswith(f"{part}.")
            },
            layers,
        )
        for part, layers in names.items()
    }
    for part in configured:
        if configured[part].has_magnitudes and not any(
            place.part == part and {*MAGNITUDES} & {*module.tensors} for place, module in matches
        ):
            raise WeightsError(
                f"{file.path.name} is incomplete: its configuration has use_dora, but no layer of "
                f"the {part} has magnitudes.",
                hint="Fetch it again.",
            )
    return [_alpha(file, match, configured[match.place.part]) for match in matches]


def _alpha(file: LoraFile, match: Match, configured: Alphas) -> float | None:
    place, module = match
    method = module.method
    rank = method.rank_of(module.tensors)
    alpha = module.alpha
    if issubclass(method, Rotation):
        return alpha  # a limit, not a strength
    if alpha is None:
        alpha = configured.of(_name(place, module), rank or 1)
    if rank is None and method is Kronecker:
        alpha = _whole_factors(alpha, configured.rank or file.dim)
    if module.scalar == 1:
        return alpha
    return module.scalar * (float(rank or 1) if alpha is None else alpha)


def _name(place: Place, module: Module) -> str:
    """Returns the name by which PEFT's configuration knows a layer."""
    return module.name if place.part == LANGUAGE_PART else place.name


def _whole_factors(alpha: float | None, dim: int | None) -> float | None:
    """Returns the strength of a LoKr of which both factors are stored whole.

    The tensors do not show the rank, so alpha is divided by the one that the file states, never by
    1. Trainers write alpha = rank there, for a strength of 1.
    """
    return None if alpha is None or dim is None else alpha / dim
