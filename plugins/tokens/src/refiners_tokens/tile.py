"""HyperTile: self-attention within tiles of the map."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Layer, Seat
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.option import choice, flag, whole
from refiners_tokens.grid import Grid, deepest_level, grids


class HyperTile(Adapter):
    """Lets positions attend to their tile of the map alone (https://github.com/tfernd/HyperTile).

    Tiles divide the map evenly: their sides are among the smallest divisors of its sides that are
    not below the tile size. Which of them is drawn anew at each call, so that borders move; the
    draw depends on the step alone, since the pictures of a batch are tiled alike. A side without
    such a divisor, such as a prime, is not divided. The method has no paper.

    Args:
        tile_size: The smallest side of a tile in pixels, at least 8.
        swap_size: How many of the divisors are drawn from; 1 draws none.
        max_depth: The last level that is tiled, by its number of downsamplings: 0, 1, 2 or 3; None
            for the first level with self-attention, which is 0 for Stable Diffusion 1.5, as in the
            authors' package, and 1 for XL.
        scale_depth: Whether tiles of a level that was downsampled n times are 2^n times as large,
            in positions of that level.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: An option is out of range.

    Example:
        >>> HyperTile(name="hypertile").tile_size
        256
    """

    def __init__(
        self,
        *,
        tile_size: int = 256,
        swap_size: int = 2,
        max_depth: int | None = None,
        scale_depth: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.tile_size: Final = whole("tile_size", tile_size, 256, low=8)
        self.swap_size: Final = whole("swap_size", swap_size, 2)
        self.max_depth: Final = (
            None if max_depth is None else choice("max_depth", max_depth, (0, 1, 2, 3))
        )
        self.scale_depth: Final = flag("scale_depth", scale_depth, True)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Draws the sizes of tiles at the input of the UNet, and tiles self-attention.

        Raises:
            AdapterError: No level down to `max_depth` has self-attention.
        """
        reduction = model.autoencoder.config.reduction
        draw = DrawTiles(
            self.key,
            self.tile_size // reduction,
            self.swap_size,
            deepest_level(model, self.max_depth, self.key, "max_depth={depth}"),
            is_scaled=self.scale_depth,
        )
        tiles = self.context_key("tiles")

        def drawn(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(draw, inner)

        def tiled(inner: nn.Module, seat: Seat) -> nn.Module:
            return AttendInTiles(tiles, inner)

        attend = model.slot("unet.self_attention.attend")
        return (
            *model.slot("unet.input").wrap(drawn, stage="inputs", name="draw"),
            *attend.wrap(tiled, stage="inputs", name="tile"),
        )


@dataclass(frozen=True)
class Tiling:
    """The tiles of a map."""

    grid: Grid
    rows: int
    """The number of tiles from top to bottom."""
    columns: int
    """The number of tiles from left to right."""

    def apply(self, x: Tensor) -> Tensor:
        """Returns each tile as a row, the tiles of a row of `x` one after the other.

        Args:
            x: Tokens, `(rows, tokens, width)`.
        """
        x = x.unflatten(1, (self.rows, self.grid.height // self.rows, self.columns, -1))
        return x.transpose(2, 3).flatten(0, 2).flatten(1, 2)

    def undo(self, x: Tensor) -> Tensor:
        """Returns tokens in the order of the map.

        Args:
            x: What `apply` returns.
        """
        x = x.unflatten(0, (-1, self.rows, self.columns))
        x = x.unflatten(3, (self.grid.height // self.rows, -1))
        return x.transpose(2, 3).flatten(1, 4)


def side_counts(side: int, least: int, options: int) -> tuple[int, ...]:
    """Returns the numbers of tiles into which a side may be divided.

    Args:
        side: The length of the side.
        least: The smallest length of a tile.
        options: How many lengths to consider, the shortest first.
    """
    least = min(least, side)
    lengths = [length for length in range(least, side + 1) if side % length == 0]
    return tuple([side // length for length in lengths[:options]])


class DrawTiles(Layer):
    """Draws the number of tiles of each level, and returns its input.

    Args:
        key: The key of the adapter.
        least: The smallest side of a tile, in positions.
        options: How many sides of tiles are drawn from.
        deepest: The last level.
        is_scaled: Whether tiles of lower levels are larger.
    """

    def __init__(
        self, key: str, least: int, options: int, deepest: int, *, is_scaled: bool
    ) -> None:
        super().__init__()
        self.key: Final = key
        self.least: Final = least
        self.options: Final = options
        self.deepest: Final = deepest
        self.is_scaled: Final = is_scaled

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        tilings: dict[int, Tiling] = {}
        if context.get(f"{self.key}.scale") is not None:
            random = Random(context.get("step", 0))
            for grid in grids(x.shape[-2], x.shape[-1], self.deepest):
                least = self.least * (2**grid.depth if self.is_scaled else 1)
                rows = random.choice(side_counts(grid.height, least, self.options))
                columns = random.choice(side_counts(grid.width, least, self.options))
                if rows * columns > 1:
                    tilings[grid.height * grid.width] = Tiling(grid, rows, columns)
        context[f"{self.key}.tiles"] = tilings
        return x

    def extra_repr(self) -> str:
        return f"{self.key!r}, {self.least} positions"


class AttendInTiles(Chain):
    """Runs an attention within tiles; one with a mask or with further tokens runs as it is.

    Args:
        tiles: The context key of the tiling by number of tokens.
        inner: Queries, keys and values to the output of the attention.
    """

    inner: nn.Module

    def __init__(self, tiles: str, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.tiles: Final = tiles

    def run(self, context: Context, *inputs: Any) -> Any:
        queries, keys = inputs[:2]
        tilings: Mapping[int, Tiling] = context.get(self.tiles, {})
        tiling = tilings.get(queries.shape[1])
        if tiling is None or len(inputs) > 3 or keys.shape[1] != queries.shape[1]:
            return self.call(self.inner, context, *inputs)
        return tiling.undo(self.call(self.inner, context, *map(tiling.apply, inputs)))

    def extra_repr(self) -> str:
        return repr(self.tiles)
