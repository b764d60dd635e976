"""Opens the pictures that a configuration names: `folder:`, `hf:`, `datasets:` and `wds:`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import torch
from msgspec import Meta

from refiners_core.models.vae import AutoencoderKL
from refiners_train.data.bucket import Buckets
from refiners_train.data.data_error import DataError
from refiners_train.data.example import Source
from refiners_train.data.folder import Folder
from refiners_train.data.framing import Framing
from refiners_train.data.latent_cache import LatentCache
from refiners_train.data.option import parted_options
from refiners_train.data.picture_source import PictureSource
from refiners_train.data.prior import WithPrior
from refiners_train.data.record import Records, check_pictures
from refiners_train.data.shard import Shards
from refiners_train.data.table import Table

Side = Annotated[int, Meta(ge=8)]
Share = Annotated[float, Meta(ge=0, le=1)]

SCHEMES: Final[Mapping[str, Callable[..., Records]]] = {
    "folder": Folder,
    "hf": Table,
    "datasets": Table,
    "wds": Shards,
}
"""The reader of the records of each scheme."""


class BucketOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes of several shapes; see `Buckets`."""

    area: Annotated[int, Meta(ge=64)] | None = None
    """The most pixels; by default those of `size`."""
    step: Side = 64
    longest: Annotated[float, Meta(ge=1)] = 2.0


class CacheOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Latents on disk; see `LatentCache`."""

    folder: str
    variants: Annotated[int, Meta(ge=1)] = 1
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    sampled: bool = True


class PictureOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The options that all sources of pictures have."""

    # Not a tuple: beside a constrained number, msgspec 0.22 damages memory.
    size: Side | Annotated[list[Side], Meta(min_length=2, max_length=2)] | None = None
    """The side, or height and width, of every example; by default that of the base."""
    crop: Literal["center", "random"] = "center"
    flip: Share = 0.0
    buckets: BucketOptions | None = None
    """Sizes of several shapes in place of one."""
    cache: CacheOptions | None = None
    prior: dict[str, Any] | None = None
    """`source` and options of prior examples; sizes and framing are those of the others."""
    check: bool = True
    """Whether every file is read once before the training."""


def is_pictures(source: str) -> bool:
    """Whether a source of a configuration has a scheme of pictures."""
    return source.partition(":")[0] in SCHEMES and ":" in source


def open_pictures(
    source: str,
    options: Mapping[str, Any],
    *,
    size: tuple[int, int],
    seed: int,
    autoencoder: AutoencoderKL | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Source:
    """Opens a source of pictures and checks its files.

    Args:
        source: A scheme and a place, such as `folder:./pictures`.
        options: Those of `PictureOptions`, and those of the scheme.
        size: Height and width of examples for which the options name no size.
        seed: The seed of flips, random crops and sampled latents.
        autoencoder: The autoencoder that fills the cache of latents; None leaves pictures as they
            are.
        progress: Is called with the numbers of encoded and of all pictures.

    Raises:
        DataError: An option is unknown or out of range, or pictures cannot be read.
    """
    common, rest = split_options(source, options)
    pictures = _pictures(source, common, rest, size, seed)
    prior = None
    if common.prior is not None:
        place, prior_options = _prior_of(common.prior)
        prior = _pictures(place, common, prior_options, size, seed)
    parts = [part for part in (pictures, prior) if part is not None]
    for part in parts if common.check else ():
        check_pictures(part.records)
    opened: list[Source] = [*parts]
    if common.cache is not None and autoencoder is not None:
        folders = (Path(common.cache.folder), Path(common.cache.folder) / "prior")
        opened = [
            _cached(part, common.cache, folder, autoencoder, progress)
            for part, folder in zip(parts, folders, strict=False)
        ]
    return opened[0] if len(opened) == 1 else WithPrior(*opened)


def split_options(source: str, options: Mapping[str, Any]) -> tuple[PictureOptions, dict[str, Any]]:
    """Returns the options that all sources have, and those of the scheme of this one.

    Raises:
        DataError: An option is unknown or out of range.
    """
    opens = SCHEMES[source.partition(":")[0]]
    return parted_options(source, options, PictureOptions, opens)


def _prior_of(prior: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    source = prior.get("source")
    if not isinstance(source, str) or not is_pictures(source):
        raise DataError(
            f"the prior examples need a source of pictures, got {source!r}.",
            hint='Write prior = { source = "folder:PATH", caption = "a dog" }.',
        )
    rest = {name: value for name, value in prior.items() if name != "source"}
    _, options = split_options(source, rest)
    return source, options


def _pictures(
    source: str,
    common: PictureOptions,
    rest: Mapping[str, Any],
    size: tuple[int, int],
    seed: int,
) -> PictureSource:
    scheme, _, place = source.partition(":")
    if common.size is not None:
        sides = [common.size] * 2 if isinstance(common.size, int) else common.size
        size = sides[0], sides[1]
    sizes: tuple[int, int] | Buckets = size
    if (buckets := common.buckets) is not None:
        sizes = Buckets(buckets.area or size[0] * size[1], buckets.step, buckets.longest)
    try:
        records = SCHEMES[scheme](place, **rest)
    except TypeError as error:
        raise DataError(
            f"the options of {source} have a fault: {error}.", hint="Look at `options` in [data]."
        ) from error
    return PictureSource(records, sizes, Framing(common.crop, common.flip), seed)


def _cached(
    source: PictureSource,
    options: CacheOptions,
    folder: Path,
    autoencoder: AutoencoderKL,
    progress: Callable[[int, int], None] | None,
) -> LatentCache:
    cache = LatentCache(
        source,
        autoencoder,
        folder,
        variants=options.variants,
        dtype=getattr(torch, options.dtype),
        is_sampled=options.sampled,
    )
    cache.fill(autoencoder, progress=progress)
    return cache
