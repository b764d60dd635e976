"""HyperTile: attend within tiles of the picture.

Self-attention costs the square of its tokens; within tiles it costs far less. In a small picture
parts of different tiles stop to agree, which shows what attention is for.
"""

import refiners

model = refiners.load_model("playground")
prompt = "a green ring on a white background"
options = {"steps": 12, "seed": 7, "progress": False}
pictures = {"whole": model.generate(prompt, **options)}

for tile in (32, 16):
    with refiners.load_adapter("hypertile", tile_size=tile, swap_size=1).on(model):
        pictures[f"tiles of {tile} pixels"] = model.generate(prompt, **options)
