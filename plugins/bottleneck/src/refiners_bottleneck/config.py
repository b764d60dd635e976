"""The configuration of a bottleneck adapter, as AdapterHub publishes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal, Self, cast

from refiners_bottleneck.activation import ACTIVATIONS, OLD_NAMES
from refiners_core.errors import WeightsError
from refiners_core.option import is_number, is_whole

PLACES: Final = {"mh_adapter": "attention_adapters", "output_adapter": "output_adapters"}
"""The layers of a block after which bottlenecks act: their fields and their published names."""

TRAINING: Final = frozenset(
    {
        *("architecture", "init_weights", "init_weights_seed", "dropout", "stochastic_depth"),
        *("phm_c_init", "phm_init_range", "learn_phm", "hypercomplex_nonlinearity"),
        *("cross_adapter", "inv_adapter", "inv_adapter_reduction_factor", "invertible_adapter"),
    }
)
"""Fields that do not change what a trained adapter of a decoder computes, or are checked apart."""


@dataclass(frozen=True)
class BottleneckConfig:
    """The form of a bottleneck adapter; fields have AdapterHub's names and defaults."""

    mh_adapter: bool = False
    """Whether bottlenecks come after attention."""
    output_adapter: bool = True
    """Whether bottlenecks come after feed-forward networks."""
    reduction_factor: float | Mapping[str, float] = 16.0
    """The width of the model over that of the bottleneck: a number, or numbers by layer, from "0",
    and "default"."""
    non_linearity: str = "relu"
    """The activation in the bottleneck, a key of `ACTIVATIONS`."""
    original_ln_before: bool = False
    """Whether the bottleneck reads the output of the layer with its residual added."""
    original_ln_after: bool = True
    """Whether the residual of the layer is added after the adapter."""
    ln_before: bool = False
    """Whether features are normalised before the bottleneck."""
    ln_after: bool = False
    """Whether features are normalised after the bottleneck."""
    is_parallel: bool = False
    """Whether the bottleneck reads what the layer starts from, before it is normalised."""
    scaling: float | Literal["learned", "channel"] = 1.0
    """The factor of what the bottleneck adds; `learned` for a learned number, `channel` for a
    learned number for each feature."""
    use_gating: bool = False
    """Whether a learned gate multiplies what the bottleneck adds."""
    residual_before_ln: bool | Literal["post_add"] = True
    """Whether the residual of the bottleneck is the output of the layer rather than what the
    bottleneck reads."""
    adapter_residual_before_ln: bool = False
    """Whether the residual of the bottleneck is added before `ln_after`."""
    leave_out: tuple[int, ...] = ()
    """The layers without a bottleneck, from 0."""
    phm_layer: bool = False
    """Whether the projections are sums of Kronecker products (arXiv:2106.04647, section 3)."""
    phm_dim: int = 4
    """The number of these products, and the size of their first factors."""
    phm_rank: int = 1
    """The rank of the second factors."""
    phm_bias: bool = True
    """Whether the projections have a bias."""
    factorized_phm_W: bool = True
    """Whether the second factors have a low rank."""
    shared_W_phm: bool = False
    """Whether all layers share the second factors."""
    shared_phm_rule: bool = True
    """Whether all layers share the first factors."""
    factorized_phm_rule: bool = False
    """Whether the first factors have rank 1."""

    @classmethod
    def named(cls, name: str) -> Self:
        """Returns a published configuration.

        Raises:
            WeightsError: No bottleneck adapter has this name.
        """
        if name not in NAMED:
            raise WeightsError(
                f"{name!r} is not a bottleneck configuration.",
                hint=f"They are {', '.join(NAMED)}.",
            )
        return cls(**NAMED[name])

    @classmethod
    def from_json(cls, data: Mapping[str, Any], origin: str, *, is_old: bool = False) -> Self:
        """Reads a published configuration.

        Args:
            data: The fields.
            origin: The file, for messages.
            is_old: Whether the activation has an old name, as in folders that state no version.

        Raises:
            WeightsError: A field has an unknown name or value.
        """
        known = {field.name for field in fields(cls)}
        if unknown := [name for name in data if name not in known | TRAINING]:
            raise WeightsError(
                f"{origin} has the field {unknown[0]} = {data[unknown[0]]!r}, which is not known "
                "and may change the result.",
                hint="Remove it if the adapter was trained without it.",
            )
        for name in ("inv_adapter", "invertible_adapter"):
            if data.get(name):
                raise WeightsError(
                    f"{origin} has {name} = {data[name]!r}: an invertible adapter after the "
                    "embedding, which is not read.",
                    hint="Give an adapter of another configuration, such as seq_bn.",
                )
        values = {name: value for name, value in data.items() if name in known}
        if is_old and (word := str(values.get("non_linearity"))) in OLD_NAMES:
            values["non_linearity"] = OLD_NAMES[word]
        values["leave_out"] = values.get("leave_out") or ()
        checked = {name: _checked(name, value, origin) for name, value in values.items()}
        return cls(**checked)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as AdapterHub writes them."""
        return {**asdict(self), "leave_out": list(self.leave_out)}

    def changed(self, **values: Any) -> Self:
        """Returns a configuration with other fields.

        Raises:
            WeightsError: A field has an unknown name or value.
        """
        both = {**self.to_json(), **values}
        return replace(self.from_json(both, "the configuration"))

    def size(self, layer: int, width: int, origin: str) -> int:
        """Returns the width of the bottlenecks of a layer.

        Raises:
            WeightsError: The reduction factors do not include the layer.
        """
        factor = self.reduction_factor
        if isinstance(factor, Mapping):
            factor = factor.get(str(layer), factor.get("default", 0.0))
        if not factor:
            raise WeightsError(
                f"{origin} has reduction_factor = {self.reduction_factor}, without layer {layer} "
                'and without "default".',
                hint='Add what the adapter was trained with, such as "default": 16.',
            )
        return max(int(width // factor), 1)

    def acts(self, place: str, layer: int) -> bool:
        """Whether a layer has a bottleneck at a place, a key of `PLACES`."""
        return bool(getattr(self, place)) and layer not in self.leave_out


def _checked(name: str, value: Any, origin: str) -> Any:
    """Returns the value of a field.

    Raises:
        WeightsError: The value is not one that the field can have.
    """
    if name == "reduction_factor":
        factors = cast("dict[str, Any]", value) if isinstance(value, dict) else {"default": value}
        if factors and all(is_number(part) and part > 0 for part in factors.values()):
            return value if isinstance(value, dict) else float(value)
        wanted = "numbers above 0"
    elif name == "non_linearity":
        word = value.lower() if isinstance(value, str) else value
        if word in ACTIVATIONS:
            return word
        wanted = ", ".join(ACTIVATIONS)
    elif name == "scaling":
        if value in ("learned", "channel") or is_number(value):
            return float(value) if is_number(value) else value
        wanted = 'a number, "learned" or "channel"'
    elif name == "residual_before_ln":
        if isinstance(value, bool) or value == "post_add":
            return value
        wanted = 'true, false or "post_add"'
    elif name == "leave_out":
        if isinstance(value, Sequence) and all(map(is_whole, cast("Sequence[Any]", value))):
            return tuple(cast("Sequence[int]", value))
        wanted = "numbers of layers"
    elif name in ("phm_dim", "phm_rank"):
        if is_whole(value) and value > 0:
            return value
        wanted = "a whole number above 0"
    elif isinstance(value, bool):
        return value
    else:
        wanted = "true or false"
    raise WeightsError(
        f"{origin} has {name} = {value!r}; it can be {wanted}.",
        hint="Give the adapter_config.json that was published with the weights.",
    )


_SEQUENTIAL: Final[Mapping[str, Any]] = {"original_ln_before": True}
_DOUBLE: Final[Mapping[str, Any]] = {"mh_adapter": True, "non_linearity": "swish"}
_PHM: Final[Mapping[str, Any]] = {
    "phm_layer": True,
    "reduction_factor": 32.0,
    "non_linearity": "gelu",
}
_PARALLEL: Final[Mapping[str, Any]] = {
    "is_parallel": True,
    "reduction_factor": 2.0,
    "scaling": 4.0,
}

NAMED: Final[Mapping[str, Mapping[str, Any]]] = {
    "seq_bn": _SEQUENTIAL,
    "double_seq_bn": _DOUBLE,
    "par_bn": _PARALLEL,
    "scaled_par_bn": {**_PARALLEL, "scaling": "learned"},
    "compacter": {**_DOUBLE, **_PHM},
    "compacter++": {**_SEQUENTIAL, **_PHM},
    "adapter_plus": {
        "original_ln_before": True,
        "original_ln_after": False,
        "residual_before_ln": False,
        "scaling": "channel",
        "reduction_factor": 96.0,
        "non_linearity": "gelu",
    },
    "pfeiffer": _SEQUENTIAL,
    "houlsby": _DOUBLE,
    "parallel": _PARALLEL,
    "scaled_parallel": {**_PARALLEL, "scaling": "learned"},
}
"""The published configurations by name, with older names at the end."""
