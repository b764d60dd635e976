"""A panorama of regions.

Windows make a wide picture with a model for small ones, and regions name what is where. FreeU
acts in every window.
"""

import refiners

model = refiners.load_model("playground")
options = {"size": (192, 64), "seed": 7, "steps": 12, "progress": False}
regions = refiners.load_adapter("regional-prompts", model, mode="attention")
windows = refiners.load_adapter("mixture-of-diffusers", model)
freeu = refiners.load_adapter("freeu", model)
things = ["yellow star on a blue", "red heart on a white", "green ring on a pink"]
parts = [
    {"prompt": f"a large {thing} background", "box": (i / 3, 0, (i + 1) / 3, 1)}
    for i, thing in enumerate(things)
]

conditions = {regions: parts}
plain = {regions: None, windows: None, freeu: None}
pictures = {
    "one prompt, at once": model.generate(
        "a star, a heart and a ring", conditions=plain, **options
    ),
    "regions in windows, with FreeU": model.generate("", conditions=conditions, **options),
}
