"""Matches the layer names of a file with a language model; refuses files for other models."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from torch import nn

from refiners_core import Model
from refiners_core.errors import WeightsError
from refiners_lora.language_name import language_places
from refiners_lora.layer_name import Place
from refiners_lora.lora_file import LoraFile, Module
from refiners_lora.match_check import Match, check_names, check_shapes, notify
from refiners_lora.method.share import shared
from refiners_lora.peft_method import family_of
from refiners_lora.peft_target import mismatches, some, unmatched

_STORED: Final = frozenset({"whole", "whole_bias", "tokens", "token_ids"})
"""The roles of weights beside which a layer has no method of its own."""


def match_language(file: LoraFile, model: Model) -> list[Match]:
    """Returns the layers of a language model that a file changes.

    The names in the file decide. Where they differ from the targets of its configuration, and
    where the model lacks a layer, one `Notice` counts and names the layers.

    Raises:
        WeightsError: The file is for another model, or has no layer of this one.
    """
    known = language_places(model)
    unknown = [name for name in file.modules if name not in known]
    if (family := family_of(unknown)) is not None:
        raise _for_another(file, model, f"is {file.title} for {family[0]}: it names {family[1]!r}")
    matches: list[Match] = []
    for name, module in file.modules.items():
        for place in known.get(name, ()):
            matches.append(Match(place, _of_share(file, module, place)))
    if not matches:
        layers = f"holds {file.title} for {len(file.modules)} layers: {some([*file.modules])}"
        raise _for_another(file, model, f"{layers}; none is in the model")
    matches += _tied(matches, known)
    check_names(file, matches)
    if misfits := check_shapes(file, model, matches):
        raise _of_other_sizes(file, model, matches, misfits)
    notify(file, model, unknown, _lines(file, known, matches))
    return matches


def _of_share(file: LoraFile, module: Module, place: Place) -> Module:
    """Returns the change of a published layer for one of the layers that it is here."""
    try:
        return replace(module, tensors=shared(module.tensors, place.transform))
    except ValueError as error:
        raise WeightsError(
            f"{file.path.name} cannot change {module.name!r}: its weights {error}.",
            hint="Fetch it again, or give an adapter that was trained on this model.",
        ) from error


def _tied(matches: Sequence[Match], known: Mapping[str, Sequence[Place]]) -> list[Match]:
    """Returns the change of a head that shares the weight of an embedding with trained tokens.

    A head with weights of its own in the file keeps these.
    """
    changed = {place.seat.path for place, _ in matches}
    heads = {place.seat.path: place for places in known.values() for place in places
             if place.seat.is_a(nn.Linear) and place.seat.path not in changed}  # fmt: skip
    return [
        Match(head, module)
        for place, module in matches
        if "tokens" in module.tensors and place.seat.is_a(nn.Embedding)
        for head in heads.values()
        if getattr(head.seat.layer, "weight", None) is place.seat.layer.weight
    ]


def _lines(
    file: LoraFile, known: Mapping[str, Sequence[Place]], matches: Sequence[Match]
) -> Iterator[str]:
    """Yields where the configuration and the weights differ, as clauses."""
    written = {places[0].name: name for name, places in known.items() if name in file.modules}
    spelled = dict.fromkeys(
        written.get(places[0].name, places[0].name) for places in known.values()
    )
    tunable = [name for name in spelled if known[name][0].seat.is_a(nn.Linear)]
    tuned = [name for name, module in file.modules.items() if {*module.tensors} - _STORED]
    yield from mismatches(file.config, [*tuned, *file.empty], tunable)
    yield from unmatched(file.config, [*tuned, *file.empty])
    stated = file.config.get("r")
    ranks = {len(module.tensors["down"]) for _, module in matches if "down" in module.tensors}
    is_plain = file.config.get("peft_type") == "LORA" and not file.config.get("rank_pattern")
    if is_plain and isinstance(stated, int) and ranks and ranks != {stated}:
        present = ", ".join(map(str, sorted(ranks)))
        yield f"its configuration has rank {stated}, its weights {present}, which counts"


def _of_other_sizes(
    file: LoraFile,
    model: Model,
    matches: Sequence[Match],
    misfits: Sequence[tuple[Match, str]],
) -> WeightsError:
    (place, module), reason = misfits[0]
    tokens = _tokens(place, module)
    vocabulary = model.facts.get("vocabulary")
    if tokens is not None and tokens != vocabulary:
        return _for_another(
            file,
            model,
            f"is {file.title} for a vocabulary of {tokens} tokens, at {module.name!r}, not of "
            f"{vocabulary}",
        )
    count = f"{len(misfits)} of {len(matches)} layers have other sizes"
    return _for_another(
        file,
        model,
        f"is {file.title} for a model of other sizes: {count}. {module.name!r} {reason}",
    )


def _tokens(place: Place, module: Module) -> int | None:
    """Returns the number of tokens that the weights for an embedding or a head need; None for other
    layers."""
    is_table = place.seat.is_a(nn.Embedding)
    if not is_table and place.name != "lm_head":
        return None
    if "tokens" in module.tensors:
        return int(module.tensors["token_ids"].max()) + 1
    inputs, outputs = module.method.sizes(module.tensors)
    sizes = outputs if module.method.has_rows_first or not is_table else inputs
    return None if sizes is None else sizes[0]


def _for_another(file: LoraFile, model: Model, fact: str) -> WeightsError:
    name = file.trained_on
    origin = f", which was trained on {name!r}," if name else ""
    return WeightsError(
        f"{file.path.name}{origin} {fact}; this model is {model.base}.",
        hint=f"Load {name}, with its tokenizer."
        if name
        else "Load the model and the tokenizer that it was trained with.",
    )
