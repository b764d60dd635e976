"""The conditions of worn adapters in one generation."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

from torch import Tensor

from refiners_core.condition import Condition
from refiners_core.errors import ConditionError, Notice
from refiners_core.models.diffusion.denoise import COND
from refiners_core.models.diffusion.preparation import prepare
from refiners_core.models.diffusion.request import GenerationRequest
from refiners_core.models.diffusion.strength import Scales, Strengths, strengths
from refiners_core.picture import to_mask
from refiners_core.scale import checked_scale
from refiners_core.surgery.adapter import Adapter

Conditioning = Mapping[str, Mapping[str, Tensor]]
"""For each context key, a tensor per branch with one row, or one for each image."""


@dataclass(frozen=True)
class AdapterCondition:
    """An adapter's condition in one generation, and the tensors that it is encoded to."""

    adapter: Adapter
    condition: Condition
    conditioning: Conditioning = field(default_factory=dict[str, Mapping[str, Tensor]])
    strengths: Strengths | None = None
    """The scales of the condition; None until they are evaluated for a number of steps."""
    finish: Callable[[], Any] | None = None
    """Returns the value of the condition, which networks of preprocessors make; None if `condition`
    has it."""

    def evaluated(self, request: GenerationRequest, steps: int) -> "AdapterCondition":
        """Evaluates the scale at each of so many steps and returns this condition with the result.

        Raises:
            ConditionError: The scale does not suit the adapter or the number of images.

        Warns:
            Notice: The condition has a scale, but no step lies within its span.
        """
        condition = self.condition
        has_span = any(condition.spans(step, steps) for step in range(steps))
        if not has_span and checked_scale(condition.scale) != 0:
            spans = [f"{i / steps:.3g}...{(i + 1) / steps:.3g}" for i in range(steps)]
            if len(spans) > 6:
                spans[3:-2] = ["..."]
            warnings.warn(
                f"{self.adapter.key} does not act: no step lies within {condition.start:g}..."
                f"{condition.end:g}; the {steps} steps are {', '.join(spans)}.",
                Notice,
                stacklevel=7,
            )
        measured = strengths(self.adapter, condition, request.model, request.count, steps)
        return replace(self, strengths=measured)

    def follow(self, request: GenerationRequest) -> None:
        """Moves the adapter's layers outside the tree to the device and dtype of the UNet.

        They move with the model, but not with one of its components: `model.unet.to(...)` reaches
        only the layers that the UNet wears.
        """
        inside = {id(layer) for layer in request.model.modules()}
        container = self.adapter.__dict__.get("own_layers")
        for layer in self.adapter.modules():
            if id(layer) in inside or layer is container:
                continue
            weights = [*layer._parameters.values(), *layer._buffers.values()]
            if any(_is_elsewhere(weight, request) for weight in weights):
                layer._apply(partial(_moved, request=request), recurse=False)

    def prepared(self, request: GenerationRequest) -> "AdapterCondition":
        """Preprocesses the value of the condition, after which the adapter checks it.

        Raises:
            ConditionError: The value cannot be preprocessed, or the adapter refuses the generation.
            RefinersError: The name of a preprocessor does not lead to exactly one.
        """
        made = prepare(self.adapter, self.condition, (request.width, request.height))
        self.adapter.check(made.value, request)
        condition = replace(self.condition, value=made.value, preprocess=False)
        return replace(self, condition=condition, finish=made.finish)

    def encoded(self, request: GenerationRequest) -> "AdapterCondition":
        """Encodes the value of the condition and returns this condition with the tensors.

        Networks of preprocessors run first, and the adapter checks what they make.

        Raises:
            ConditionError: The adapter refuses the value, or its `encode` returns tensors that do
                not fit the context.
        """
        has_input = self.condition.value is not None or self.condition.mask is not None
        if self.finish is None and not has_input and not self.adapter.reads_prompts:
            return self
        if self.finish is not None:
            condition = replace(self.condition, value=self.finish())
            self.adapter.check(condition.value, request)
            return replace(self, condition=condition, finish=None).encoded(request)
        if self.condition.mask is not None:
            mask = to_mask(self.condition.mask, (request.height, request.width))
            if len(mask) != 1:
                raise ConditionError(
                    f"{self.adapter.key} acts in the same area of every picture, but it is given "
                    f"{len(mask)} masks.",
                    hint="Pass one mask: Condition("
                    f"{'value, ' * self.adapter.takes_condition}mask=mask).",
                )
            request = replace(request, mask=mask)
        tensors = self.adapter.encode(self.condition.value, request)
        self._check_counts(tensors, request)
        conditioning = {key: self._branches(key, tensors[key], request) for key in tensors}
        return replace(self, conditioning=conditioning)

    def _check_counts(
        self, tensors: Mapping[str, Mapping[str, Tensor]], request: GenerationRequest
    ) -> None:
        """Refuses a batch of values, each encoded to a row, whose length is not the image count."""
        rows = {len(tensor) for branches in tensors.values() for tensor in branches.values()}
        for name, item in _inputs("", self.condition.value):
            count = _count(item)
            if count not in (1, request.count) and count in rows:
                role = f" as {name}" if name else ""
                raise ConditionError(
                    f"{self.adapter.key} is given {count} values{role} for {request.count} "
                    f"picture{'s' * (request.count > 1)}.",
                    hint="Pass one for all pictures or one for each, or make as many: "
                    f"count={count}.",
                )

    def _branches(
        self, key: str, branches: Mapping[str, Tensor], request: GenerationRequest
    ) -> Mapping[str, Tensor]:
        if not key.startswith(f"{self.adapter.key}."):
            raise ConditionError(
                f"{self.adapter.key} writes the context key {key!r}, which is not its own.",
                hint=f"Name it self.context_key({key.rpartition('.')[2]!r}).",
            )
        counts = {name: len(tensor) for name, tensor in branches.items()}
        if COND not in counts or any(count not in (1, request.count) for count in counts.values()):
            sizes = ", ".join(f"{name}: {count}" for name, count in counts.items()) or "none"
            raise ConditionError(
                f"{key!r} needs 1 or {request.count} rows for {COND!r}, at least; it has {sizes}.",
                hint=f'Return {{key: {{"{COND}": tensor}}}} from encode().',
            )
        return {
            name: tensor.to(request.device, request.dtype)
            if tensor.is_floating_point()
            else tensor.to(request.device)
            for name, tensor in branches.items()
        }


def _inputs(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the name and the value of each input, also of those inside inputs."""
    if isinstance(value, Condition):
        yield from _inputs(name, value.value)
    elif isinstance(value, Mapping):
        for role, item in value.items():
            yield from _inputs(f"{name}.{role}" if name else str(role), item)
    else:
        yield name, value


def _count(value: Any) -> int:
    """Returns the number of values in a batch, or in lists of any depth."""
    if isinstance(value, list | tuple):
        return sum(map(_count, cast("Sequence[Any]", value)))
    return len(value) if isinstance(value, Tensor) and value.ndim == 4 else 1


def _is_elsewhere(weight: Tensor | None, request: GenerationRequest) -> bool:
    if weight is None or weight.is_meta or not weight.is_floating_point():
        return False
    return weight.dtype != request.dtype or weight.device.type != request.model.unet.device.type


def _moved(weight: Tensor, request: GenerationRequest) -> Tensor:
    return weight.to(
        request.model.unet.device, request.dtype if weight.is_floating_point() else None
    )


def match_conditions(worn: Sequence[Adapter], conditions: Any) -> tuple[AdapterCondition, ...]:
    """Matches the `conditions` of a call with the worn adapters; those set to None are left out.

    Raises:
        ConditionError: A condition is for an adapter that is not worn or that takes no value, or a
            worn adapter that needs a condition has none.
    """
    values = {} if conditions is None else conditions
    if not isinstance(values, Mapping) or not all(isinstance(key, Adapter) for key in values):
        raise ConditionError(
            f"conditions map adapters to values; got {_type_names(values)}.",
            hint="Try conditions={adapter: picture} with what load_adapter returned.",
        )
    for adapter in values:
        if not any(adapter is other for other in worn):
            raise ConditionError(
                f"{adapter.key} has a condition, but this model wears {_keys(worn)}.",
                hint="Put it on first: adapter.inject(model).",
            )
    matched: list[AdapterCondition] = []
    for adapter in worn:
        is_given = adapter in values
        is_needed = adapter.takes_condition and adapter.needs_condition
        value = values[adapter] if is_given else Condition()
        if is_needed and not is_given:
            raise ConditionError(
                f"{adapter.key} is worn but has no condition.",
                hint="Pass conditions={adapter: ...}, None to leave it out this time, or eject it.",
            )
        condition = value if isinstance(value, Condition) else Condition(value)
        if adapter.merged_scale is not None:
            _check_merged(adapter, value, condition)
            condition = replace(condition, scale=adapter.merged_scale)  # as recipes record it
        if value is None or (is_needed and condition.value is None):
            continue
        _check(adapter, condition)
        matched.append(AdapterCondition(adapter, condition))
    return tuple(matched)


def active_conditions(
    conditions: Sequence[AdapterCondition], request: GenerationRequest, steps: int
) -> tuple[AdapterCondition, ...]:
    """Returns the conditions that act at some step, with their scales evaluated.

    Raises:
        ConditionError: A scale does not suit its adapter or the number of images.
    """
    evaluated = [item.evaluated(request, steps) for item in conditions]
    return tuple([item for item in evaluated if item.strengths and item.strengths.is_ever_active])


def scales_of(conditions: Sequence[AdapterCondition], request: GenerationRequest) -> Scales:
    """Returns the scales of conditions as tensors."""
    items = [item.strengths for item in conditions if item.strengths]
    return Scales(items, request.dtype, request.device)


def _check(adapter: Adapter, condition: Condition) -> None:
    if not adapter.takes_condition and condition.value is not None:
        raise ConditionError(
            f"{adapter.key} takes no value, but is given a {type(condition.value).__name__}.",
            hint="Condition(scale=0.5) sets its strength, None leaves it out this time.",
        )
    if not adapter.takes_condition and condition.preprocess is not False:
        raise ConditionError(
            f"{adapter.key} takes no value that could be preprocessed.",
            hint="Leave preprocess= out.",
        )
    if adapter.inputs:
        _check_inputs(adapter, condition.value)
    if condition.mask is not None and not adapter.takes_mask:
        raise ConditionError(
            f"{adapter.key} acts on the whole picture: it takes no mask.", hint="Leave mask= out."
        )


def _check_merged(adapter: Adapter, value: Any, condition: Condition) -> None:
    """Raises if a condition asks for another strength than that of a merged adapter."""
    strength = condition
    if adapter.takes_condition:
        strength = replace(condition, value=None, preprocess=False)
    if value is None or strength not in (Condition(), Condition(scale=adapter.merged_scale or 0)):
        raise ConditionError(
            f"{adapter.key} is merged at scale {adapter.merged_scale:g}: a condition cannot change "
            "its strength, steps or region.",
            hint="Leave it out of conditions, or call its unmerge() first.",
        )


def _check_inputs(adapter: Adapter, value: Any) -> None:
    names = (*adapter.inputs, *adapter.optional_inputs)
    values: Mapping[Any, Any] = value if isinstance(value, Mapping) else {}
    missing = [name for name in adapter.inputs if name not in values]
    unknown = [str(name) for name in values if name not in names]
    if not missing and not unknown:
        return
    if missing:
        given = ", ".join(map(str, values)) if value is values else type(value).__name__
        fact = f"needs {' and '.join(missing)}; it is given {given or 'nothing'}"
    else:
        fact = f"takes {' and '.join(names)}, not {' and '.join(unknown)}"
    example = ", ".join(f'"{name}": ...' for name in names)
    raise ConditionError(
        f"{adapter.key} {fact}.", hint=f"Pass conditions={{adapter: {{{example}}}}}."
    )


def _keys(worn: Sequence[Adapter]) -> str:
    return ", ".join(adapter.key for adapter in worn) or "nothing"


def _type_names(values: Any) -> str:
    if not isinstance(values, Mapping):
        return f"a {type(values).__name__}"
    return "keys of type " + ", ".join(sorted({type(key).__name__ for key in values}))
