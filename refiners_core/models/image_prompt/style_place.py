"""The places of a UNet at which an image prompt sets style or layout alone (InstantStyle)."""

from collections.abc import Mapping

from refiners_core.model import Model


def style_places(model: Model) -> Mapping[str, tuple[str, ...]]:
    """Returns the paths of the transformers behind the names `style` and `layout`.

    In Stable Diffusion XL, `up_blocks.0.attentions.1` sets colours, material and mood, and
    `down_blocks.2.attentions.1` the composition (InstantStyle, arXiv:2404.02733, section 3.2). They
    are the middle transformer of the first level with attention on the way up, and the last one of
    the last such level on the way down; other UNets have their equivalents there.

    Args:
        model: A model with the slots of a UNet.

    Returns:
        The paths by name; empty for a model without such transformers.
    """
    if "unet.transformer" not in model.slots:
        return {}
    by_level: dict[tuple[str, ...], list[str]] = {}
    for seat in model.slot("unet.transformer"):
        by_level.setdefault(tuple(seat.path.split(".")[1:3]), []).append(seat.path)
    down = [paths for (way, _), paths in by_level.items() if way == "down"]
    up = [paths for (way, _), paths in by_level.items() if way == "up"]
    if not down or not up:
        return {}
    return {"style": (up[0][len(up[0]) // 2],), "layout": (down[-1][-1],)}
