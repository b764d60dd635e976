"""Palette: prompt with colours and their shares.

Up to eight colours are read by an attention of their own beside that to the text, as an IP-Adapter
reads a picture. The prompt names no colour here.
"""

import refiners

model = refiners.load_model("playground")
palette = refiners.load_adapter("palette", model)

options = {"seed": 7, "steps": 12, "progress": False}
pictures = {}
for colours in (
    [("#db2424", 1), ("#f5f5f5", 3)],
    [("#f5f5f5", 1), ("#db2424", 3)],
    [("#fae033", 1), ("#264dd9", 2)],
    [("#7a2e9e", 1), ("#33ccdb", 2)],
):
    title = ", ".join(f"{weight} of {name}" for name, weight in colours)
    pictures[title] = model.generate("a large heart", conditions={palette: colours}, **options)
