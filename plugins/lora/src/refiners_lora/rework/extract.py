"""A plain LoRA of the difference between two models."""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from refiners_core import Model, select
from refiners_core.errors import AdapterError
from refiners_lora.layer_name import SLOTS, Place, places_by_name
from refiners_lora.rework.convert import nearest
from refiners_lora.rework.product import PlainLora, made
from refiners_lora.rework.source import Changes, Dropped, Origin, check_image_model
from refiners_lora.rework.spectrum import checked_rank, checked_share
from refiners_lora.rework.target import Factors, Target, group_of


class Pair(NamedTuple):
    """A layer of the base model, and the layer of the tuned model at the same path."""

    path: str
    base: Any
    tuned: Any


@torch.no_grad()
def extract(
    base: Model,
    tuned: Model,
    rank: int,
    *,
    clamp: float | None = None,
    dtype: torch.dtype | None = None,
    names: tuple[str, str] = ("base", "tuned"),
) -> PlainLora:
    """Makes a plain LoRA of the difference between a model and a tuned copy of it.

    The difference of each linear layer and convolution, of the UNet and of the text encoders, is
    approximated by singular value decomposition. Those of norms, biases and embeddings are listed
    in `dropped`. Adapters that a model wears do not count.

    Args:
        base: The model.
        tuned: The tuned copy.
        rank: The greatest rank of a layer.
        clamp: The quantile of the factors' magnitudes beyond which they are clamped, above 0 and
            at most 1; None for no clamping.
        dtype: The dtype of the LoRA's weights; float32 by default.
        names: The names of both models, for the metadata.

    Raises:
        AdapterError: An argument is out of range, the models differ in structure or not at all, or
            they are language models.
    """
    rank = checked_rank(rank)
    clamp = None if clamp is None else checked_share("clamp", clamp)
    check_image_model(base)
    places = {place.seat.path: place for place in places_by_name(base, SLOTS).values()}
    digests = hashlib.sha256(), hashlib.sha256()
    layers: dict[str, tuple[Target, Factors]] = {}
    dropped: list[Dropped] = []
    for path, old, new in _pairs(base, tuned):
        for name in ("weight", "bias"):
            before, after = _weight(old, name, path), _weight(new, name, path)
            if before is None or after is None:
                if before is not after:
                    raise _differ(path, f"only one of them has a {name}")
                continue
            if before.shape != after.shape:
                raise _differ(path, f"{name} is {[*before.shape]} and {[*after.shape]}")
            for digest, weight in zip(digests, (before, after), strict=True):
                digest.update(weight.contiguous().numpy().tobytes())
            if torch.equal(before, after):
                continue
            if name == "weight" and path in places:
                target = _difference(places[path], after - before)
                layers[path] = target, _clamped(nearest(target, rank, dtype), clamp)
            else:
                dropped.append(Dropped(path, f"a change of the {name} of a {type(old).__name__}"))
    if not layers:
        raise AdapterError(
            f"{names[0]} and {names[1]} have the same weights in every linear layer and "
            "convolution.",
            hint="Give a model and a tuned copy of it.",
        )
    origins = [
        Origin(name, digest.hexdigest()) for name, digest in zip(names, digests, strict=True)
    ]
    command = f"lora extract --rank {rank}" + (f" --clamp {clamp}" if clamp is not None else "")
    changes = [Changes(origins[0], {}), Changes(origins[1], {}, tuple(dropped))]
    return made(base, layers, changes, command)


def _pairs(base: Model, tuned: Model) -> Iterator[Pair]:
    """Yields the layers with weights of a UNet and of text encoders, in both models."""
    kinds = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm, nn.Embedding)
    others = {seat.path: seat.layer for seat in select(tuned).of(*kinds)}
    for seat in select(base).of(*kinds):
        if not seat.path.startswith(("unet.", "text_encoder.")):
            continue
        if seat.path not in others:
            raise _differ(seat.path, "the tuned one has no such layer")
        yield Pair(seat.path, seat.layer, others[seat.path])


def _weight(layer: Any, name: str, path: str) -> Tensor | None:
    """Returns a parameter in float32; None if the layer has none of the name."""
    weight = getattr(layer, name, None)
    if weight is None:
        return None
    if weight.is_meta or not weight.is_floating_point():
        raise AdapterError(
            f"{path!r} has no weights as numbers.",
            hint="Load both models with their weights, without quantisation.",
        )
    return weight.detach().cpu().float()


def _difference(place: Place, change: Tensor) -> Target:
    return Target(place.published, group_of(place), tuple(change.shape), whole=change.flatten(1))


def _clamped(factors: Factors, quantile: float | None) -> Factors:
    """Limits the magnitudes of factors to a quantile of them."""
    if quantile is None:
        return factors
    magnitudes = torch.cat([factors.down.flatten(), factors.up.flatten()]).float().abs()
    position = min(int(quantile * len(magnitudes)), len(magnitudes) - 1)
    limit = float(magnitudes.sort().values[position])
    return factors._replace(
        down=factors.down.clamp(-limit, limit), up=factors.up.clamp(-limit, limit)
    )


def _differ(path: str, how: str) -> AdapterError:
    return AdapterError(
        f"the models differ in structure at {path!r}: {how}.",
        hint="Give a model and a tuned copy of it.",
    )
