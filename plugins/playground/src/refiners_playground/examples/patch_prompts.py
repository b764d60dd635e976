"""Pictures as prompts: adapters that read the patches of a picture.

IP-Adapter Plus reads them by the playground's image encoder, `ip-adapter-dinov2` by an encoder that
was trained without labels. The prompt is empty.
"""

import refiners

model = refiners.load_model("playground")
options = {"seed": 7, "steps": 12, "progress": False}
seen = model.generate("a striped green heart on a yellow background", **options)

pictures = {"picture": seen}
for title, adapter in {
    "ip-adapter-plus": refiners.load_adapter("ip-adapter-plus"),
    "ip-adapter-dinov2": refiners.load_adapter("ip-adapter-dinov2"),
}.items():
    with adapter.on(model):
        pictures[title] = model.generate("", conditions={adapter: seen}, **options)
