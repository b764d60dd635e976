"""FourierFT: changes of weights that have a few frequencies alone."""

import re
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_core.errors import Notice, WeightsError
from refiners_peft.change import LayerChanges, Target, check_length
from refiners_peft.field import number_in
from refiners_peft.peft_file import PeftFile


class FourierTuning(LayerChanges):
    """Adds changes to linear layers whose Fourier transform is zero but at a few random frequencies
    (arXiv:2405.03003, section 3.1).

    The change of a weight is never made: inputs are transformed, multiplied at those frequencies,
    and transformed back.

    Args:
        options: The arguments of every adapter: `weights`, `name`, `key`.
    """

    method: ClassVar[str] = "FOURIERFT"
    slots: ClassVar[tuple[str, ...]] = ("decoder.linear", "decoder.head")
    roles: ClassVar[tuple[str, ...]] = ("fourierft_spectrum",)
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        r"(?P<layer>.+)\.(?P<role>fourierft_spectrum)(\.[^.]+)?"
    )

    def changes(self, file: PeftFile, layers: Mapping[Target, Mapping[str, Tensor]]) -> None:
        """Builds a change for each place."""
        scaling = float(number_in(file.name, file.config, "scaling", float))
        seed = number_in(file.name, file.config, "random_loc_seed")
        _warn_of_patterns(file, [target.name for target in layers])
        for target, tensors in layers.items():
            spectrum = tensors["fourierft_spectrum"]
            _check_number(file, target, spectrum)
            learned = nn.Parameter(spectrum.clone())
            places = _places(target.outputs, target.inputs, len(spectrum), seed)
            size = target.outputs, target.inputs
            for seat, rows in target.shares:
                build = partial(FourierChange, learned, places, size, rows, scaling)
                self.layer(seat, build)
        _places.cache_clear()

    def merged(self, change: Any, base: nn.Module) -> Mapping[str, Tensor]:
        return {"weight": change.weight()}

    def stored(self, change: Any) -> Mapping[str, Tensor]:
        return {"fourierft_spectrum": change.spectrum}


class FourierChange(nn.Module):
    """Computes `W x`, where `W` is the real part of the inverse Fourier transform of a spectrum.

    Args:
        spectrum: The learned values, (frequencies).
        places: The rows and the columns of these values in the spectrum, (2, frequencies).
        size: The outputs and the inputs of the published layer.
        rows: The outputs of the published layer that this layer has.
        scaling: The factor of the change.
    """

    places: Tensor

    def __init__(
        self,
        spectrum: nn.Parameter,
        places: Tensor,
        size: tuple[int, int],
        rows: slice,
        scaling: float,
    ) -> None:
        super().__init__()
        self.spectrum = spectrum
        self.register_buffer("places", places, persistent=False)
        self.size: Final = size
        self.rows: Final = rows
        self.scaling: Final = scaling

    def forward(self, x: Float[Tensor, "*any inputs"]) -> Float[Tensor, "*any outputs"]:
        """Returns the change of the outputs."""
        row, column = self.places
        precise = x if x.dtype == torch.float64 else x.float()
        waves = torch.fft.ifft(precise)[..., column] * self.spectrum.to(precise.dtype)
        spread = waves.new_zeros(*x.shape[:-1], self.size[0]).index_add(-1, row, waves)
        change = torch.fft.ifft(spread).real[..., self.rows] * self.scaling
        return change.to(x.dtype)

    def weight(self) -> Float[Tensor, "outputs inputs"]:
        """Returns the change of the weight."""
        row, column = self.places
        dense = torch.zeros(self.size, device=self.spectrum.device)
        dense[row, column] = self.spectrum.detach().float()
        return torch.fft.ifft2(dense).real[self.rows] * self.scaling

    def extra_repr(self) -> str:
        return f"frequencies={len(self.spectrum)}, scaling={self.scaling:g}"


@lru_cache(maxsize=16)
def _places(outputs: int, inputs: int, count: int, seed: int) -> Tensor:
    """Draws the places of the frequencies as PEFT does, from a seed that all layers share."""
    generator = torch.Generator("cpu").manual_seed(seed)
    drawn = torch.randperm(outputs * inputs, generator=generator, device="cpu")[:count]
    return torch.stack([drawn // inputs, drawn % inputs])


def _patterns(file: PeftFile) -> list[tuple[str, int]]:
    """Returns the numbers of frequencies of layers that have another one, by pattern."""
    return list((file.config.get("n_frequency_pattern") or {}).items())


def _is_of(pattern: str, name: str) -> bool:
    """Whether a pattern of PEFT is the end of a name, from a dot on."""
    return re.match(rf"(.*\.)?({pattern})$", name) is not None


def _warn_of_patterns(file: PeftFile, names: Sequence[str]) -> None:
    """Warns of patterns that match no layer, which PEFT passes over in silence."""
    for pattern, count in _patterns(file):
        if not any(_is_of(pattern, name) for name in names):
            warnings.warn(
                f"{file.name} has {count} frequencies for {pattern!r} in its n_frequency_pattern, "
                "which is not a layer that it changes.",
                Notice,
                stacklevel=6,
            )


def _check_number(file: PeftFile, target: Target, spectrum: Tensor) -> None:
    """Checks that a layer has as many frequencies as the configuration states.

    Raises:
        WeightsError: The layer has another number, or more than its weight has.
    """
    matching = (count for key, count in _patterns(file) if _is_of(key, target.name))
    stated = next(matching, file.config.get("n_frequency"))
    check_length(file, target, "fourierft_spectrum", spectrum, spectrum.numel())
    if stated not in (None, len(spectrum)):
        raise WeightsError(
            f"{file.name} has {len(spectrum)} frequencies for {target.name!r}; its configuration "
            f"has {stated}.",
            hint="Fetch both files again: the number decides where the frequencies are.",
        )
    if len(spectrum) > target.inputs * target.outputs:
        raise WeightsError(
            f"{file.name} has {len(spectrum)} frequencies for {target.name!r}, whose weight is "
            f"{target.outputs} x {target.inputs}.{file.origin}",
            hint="Give an adapter that was trained on this model.",
        )
