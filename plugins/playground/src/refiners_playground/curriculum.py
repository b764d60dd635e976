"""The kinds of pictures that the base model learns from, each a function of an index.

A data set is a kind and a range of indices: `lesson(kind, index)` returns the same picture on every
run and machine. `CURRICULUM` has the shares of the kinds that the base model is trained on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from refiners_playground.caption import VARIED, Mention, caption
from refiners_playground.picture import Picture
from refiners_playground.random_scene import (
    canonical_scene,
    filled_scene,
    inked,
    pair_scene,
    placed_scene,
    random_face,
    sized_scene,
    subject_scene,
    varied_scene,
)


@dataclass(frozen=True)
class Kind:
    """A kind of pictures.

    Attributes:
        make: Returns a random picture of the kind.
        mention: How often captions name each part.
    """

    make: Callable[[Random], Picture]
    mention: Mention | None = None


KINDS: Mapping[str, Kind] = {
    "canonical": Kind(canonical_scene, Mention(shape=1.0)),
    "placed": Kind(placed_scene, VARIED),
    "varied": Kind(varied_scene),
    "pairs": Kind(
        pair_scene, Mention(shape=1.0, colour=1.0, size=0.25, plain=0.05, fill=0.7, relation=0.8)
    ),
    "fills": Kind(filled_scene, Mention(shape=1.0, colour=0.95, size=0.3, plain=1.0, fill=1.0)),
    "places": Kind(sized_scene, Mention(shape=1.0, colour=0.95, size=1.0, plain=0.05, place=1.0)),
    "faces": Kind(random_face, VARIED),
    "inked canonical": Kind(lambda random: inked(canonical_scene(random))),
    "inked varied": Kind(lambda random: inked(varied_scene(random))),
    "subject": Kind(subject_scene, Mention(shape=1.0)),
}
"""The kinds by name; the base model is trained on those in `CURRICULUM` alone."""

CURRICULUM: Mapping[str, float] = {
    "canonical": 0.20,
    "placed": 0.08,
    "varied": 0.14,
    "pairs": 0.22,
    "fills": 0.10,
    "places": 0.12,
    "faces": 0.14,
}
"""The share of each kind once shapes are learnt; until then 60% are canonical (`shares`)."""


def shares(canonical: float = CURRICULUM["canonical"]) -> dict[str, float]:
    """Returns the share of each kind for a share of canonical scenes; the others keep their
    proportions."""
    rest = (1 - canonical) / (1 - CURRICULUM["canonical"])
    return {
        kind: canonical if kind == "canonical" else share * rest
        for kind, share in CURRICULUM.items()
    }


def lesson(kind: str, index: int) -> Picture:
    """Returns the picture of a kind with an index, the same on every run.

    Raises:
        KeyError: No kind has this name; `KINDS` has them all.
    """
    return KINDS[kind].make(Random(f"{kind} {index}"))


def lesson_caption(kind: str, picture: Picture, random: Random) -> str:
    """Returns a caption of a picture, which names the parts that its kind teaches.

    Args:
        kind: The name of a kind in `KINDS`.
        picture: A picture of that kind.
        random: The source of randomness; another one leaves out other parts.
    """
    return caption(picture, random, mention=KINDS[kind].mention)
