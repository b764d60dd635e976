"""The objectives by name."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from refiners_core import Adapter, Model
from refiners_core.errors import RefinersError
from refiners_core.models.decoder import LanguageModel
from refiners_core.models.diffusion import LatentDiffusion
from refiners_train.config.schema import Config
from refiners_train.engine.causal import Causal
from refiners_train.engine.consistency import Consistency
from refiners_train.engine.diffusion import Diffusion
from refiners_train.engine.objective import Objective

OBJECTIVES: Final[Mapping[str, tuple[type[Model], Callable[..., Objective]]]] = {
    "diffusion": (LatentDiffusion, Diffusion),
    "consistency": (LatentDiffusion, Consistency),
    "causal": (LanguageModel, Causal),
}
"""The kind of base that each objective is for, and how it is made."""


class ObjectiveError(RefinersError):
    """An objective is not for this base."""

    code = "training-objective"
    exit_code = 2


def build_objective(model: Any, adapter: Adapter, config: Config) -> Objective:
    """Builds the objective that a configuration names.

    Args:
        model: The base, which wears the adapter.
        adapter: The adapter.
        config: The configuration.

    Raises:
        ObjectiveError: The objective is for another kind of base.
    """
    name = config.train.objective
    kind, make = OBJECTIVES[name]
    base: Any = model
    if not isinstance(base, kind):
        fitting = [other for other, (of, _) in OBJECTIVES.items() if isinstance(base, of)]
        raise ObjectiveError(
            f"the objective {name!r} is not for {model.base}.",
            hint=f'Write objective = "{fitting[0]}" in [train].' if fitting else "",
        )
    return make(model, adapter, config)
