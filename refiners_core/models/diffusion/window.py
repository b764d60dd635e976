"""Windows of a picture: the network runs on a part of the latents as on a whole picture."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.models.diffusion.denoise import branch_rows
from refiners_core.tree.context import Context
from refiners_core.tree.memory import Memory

_TIME_IDS = "time_ids"


@dataclass(frozen=True)
class Window:
    """A part of the latents of a picture; beyond the right or lower edge it wraps around.

    Example:
        >>> import torch
        >>> Window(top=0, left=3, height=1, width=2).crop(torch.arange(4.0).view(1, 1, 1, 4))
        tensor([[[[3., 0.]]]])
    """

    top: int
    """The first row of the latents."""
    left: int
    """The first column of the latents."""
    height: int
    """The number of rows."""
    width: int
    """The number of columns."""

    def crop(
        self, latents: Float[Tensor, "*batch full_height full_width"]
    ) -> Float[Tensor, "*batch height width"]:
        """Returns the part of a map that lies in the window.

        Args:
            latents: A map of the size of the latents.
        """
        x = latents
        for dim, start, length in ((-2, self.top, self.height), (-1, self.left, self.width)):
            if start + length <= x.shape[dim]:
                x = x.narrow(dim, start, length)
            else:
                x = x.roll(-start, dim).narrow(dim, 0, length)
        return x

    def add(
        self,
        total: Float[Tensor, "*batch full_height full_width"],
        part: Float[Tensor, "*rows height width"],
    ) -> None:
        """Adds a part to the map that it was cropped from, in place.

        Args:
            total: A map of the size of the latents.
            part: A map of the size of the window.
        """
        rows = _pieces(self.top, self.height, total.shape[-2])
        columns = _pieces(self.left, self.width, total.shape[-1])
        for whole_rows, part_rows in rows:
            for whole_columns, part_columns in columns:
                total[..., whole_rows, whole_columns] += part[..., part_rows, part_columns]

    def at(self, level: int) -> "Window":
        """Returns the window on a map of another size.

        Args:
            level: How often the map was halved, rounded up; below 0 how often it was doubled.
        """
        top, height = _at(self.top, self.height, level)
        left, width = _at(self.left, self.width, level)
        return Window(top, left, height, width)


def window_scope(context: Context, windows: Sequence[Window], memory: Memory) -> Context:
    """Returns the context in which the network runs on windows of the latents.

    In each branch the rows of the first window come first, with one for each image. The values of
    `context["conditions"]` that are maps of the picture are cropped, and so are the latents. A map
    is a tensor of at least four axes, the last two of which are the height and width of the
    latents, halved (rounded up) or doubled any number of times; or one with a value for each of
    these positions, whose key is that of a map followed by their number, as the masks of image
    prompts have. Time ids, which state the size of the picture, state that of the window.

    Args:
        context: The context of a step, in which the rows of all branches are laid out.
        windows: Windows of one size.
        memory: The memory of the pass, usually `context.memory.part(name)`.
    """
    latents: Tensor = context["latents"]
    size, count = (latents.shape[-2], latents.shape[-1]), len(latents)
    scope = context.scope(memory=memory)
    conditions: Mapping[str, Mapping[str, Tensor]] = context["conditions"]
    cropped = dict(_cropped(conditions, windows, size, count))
    rows = count * len(windows)
    scope["conditions"] = cropped
    scope["latents"] = torch.cat([window.crop(latents) for window in windows])
    for key, tensors in cropped.items():
        scope[key] = branch_rows(key, tensors, context["branches"], rows)
    memory.lay(context["branches"], rows * len(context["branches"]))
    return scope


def _cropped(
    conditions: Mapping[str, Mapping[str, Tensor]],
    windows: Sequence[Window],
    size: tuple[int, int],
    count: int,
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yields each condition, with the rows of all windows in each branch."""
    maps = {
        key
        for key, tensors in conditions.items()
        if all(_level(x, size) is not None for x in tensors.values())
    }
    for key, tensors in conditions.items():
        base, _, number = key.rpartition(".")
        tokens = int(number) if base in maps and number.isdecimal() else 0
        name = key
        parts: dict[str, Tensor] = {}
        for branch, x in tensors.items():
            each = [x] * len(windows)
            if tokens and x.shape[-1] == tokens and (at := _token_level(tokens, size)) is not None:
                level, sides = at
                grids = [w.at(level).crop(x.unflatten(-1, sides)) for w in windows]
                each = [grid.flatten(-2) for grid in grids]
                name = f"{base}.{each[0].shape[-1]}"
            elif key in maps and (level := _level(x, size)) is not None:
                each = [window.at(level).crop(x) for window in windows]
            elif key == _TIME_IDS:
                shares = windows[0].height / size[0], windows[0].width / size[1]
                share = x.new_tensor([*shares, 1, 1, *shares])
                each = [x * share] * len(windows)
            elif len(x) == 1:
                each = [x]
            if len(each) > 1:
                each = [part.expand(count, *part.shape[1:]) for part in each]
            parts[branch] = each[0] if len(each) == 1 else torch.cat(each)
        yield name, parts


def _level(x: Tensor, size: tuple[int, int]) -> int | None:
    """Returns how often latents were halved, or below 0 doubled, to get a map; None if `x` is
    not a map."""
    if x.ndim < 4 or x.shape[-2] * x.shape[-1] == 1:
        return None
    sides = (x.shape[-2], x.shape[-1])
    if sides[0] > size[0] or sides[1] > size[1]:
        level = round(log2(max(sides[0] / size[0], sides[1] / size[1])))
        return -level if sides == (size[0] << level, size[1] << level) else None
    return next((level for level, known in _levels(size) if known == sides), None)


def _token_level(tokens: int, size: tuple[int, int]) -> tuple[int, tuple[int, int]] | None:
    """Returns how often latents were halved to get so many positions, and the size of that map."""
    return next((at for at in _levels(size) if at[1][0] * at[1][1] == tokens), None)


def _levels(size: tuple[int, int]) -> Iterator[tuple[int, tuple[int, int]]]:
    level = 0
    while True:
        sides = (ceil(size[0] / 2**level), ceil(size[1] / 2**level))
        yield level, sides
        if sides == (1, 1):
            return
        level += 1


def _at(start: int, length: int, level: int) -> tuple[int, int]:
    """Returns the start and the length of the side of a window on a halved or doubled map."""
    if level < 0:
        return start << -level, length << -level
    return start >> level, ceil(length / 2**level)


def _pieces(start: int, length: int, whole: int) -> list[tuple[slice, slice]]:
    """Returns the slices of a side, and of a window on it, that lie on one another."""
    inside = min(length, whole - start)
    pieces = [(slice(start, start + inside), slice(0, inside))]
    if inside < length:
        pieces.append((slice(0, length - inside), slice(inside, length)))
    return pieces
