import torch
from refiners_playground.contact_sheet import ENLARGED, GAP, LINE, contact_sheet


def test_bands_lie_below_one_another():
    red, blue = (torch.zeros(3, 8, 8).index_fill(0, torch.tensor(i), 1.0) for i in (0, 2))
    first = [("a", "alone", [red]), ("b", "with", [red, red])]
    second = [("c", "below", [blue])]
    cell, head = 8 * ENLARGED + GAP, 2 * LINE + GAP
    alone, both = contact_sheet(first), contact_sheet(first, second)
    assert alone.size == (2 * cell + GAP, head + 2 * cell)
    assert both.size == (2 * cell + GAP, 2 * head + 3 * cell)
    assert both.crop((0, 0, *alone.size)).tobytes() == alone.tobytes()
    assert both.getpixel((GAP + 1, alone.height + head + 1)) == (0, 0, 255)
