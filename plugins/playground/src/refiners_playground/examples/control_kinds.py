"""Controls: edges and regions, read by four kinds of networks.

A ControlNet of regions, a union that reads edges and regions at once, a T2I-Adapter and a
Control-LoRA; all follow one drawn scene, and the prompt gives the colours.
"""

import refiners
from refiners_playground.edge import edges
from refiners_playground.lesson.control import regions
from refiners_playground.scene import Item, Scene, draw

scenes = [Scene((Item("heart", "red", radius=0.5, x=-0.3, y=0.2, angle=0.4),), "white")]
drawn = draw(scenes)
lines, areas = edges(drawn).expand(-1, 3, -1, -1), regions(scenes)
conditions = {
    "controlnet-seg": areas,
    "controlnet-union": {"canny": lines, "segmentation": areas},
    "t2i-canny": lines,
    "control-lora-canny": lines,
}

model = refiners.load_model("playground")
options = {"seed": 7, "steps": 12, "progress": False}
prompt = "a yellow heart on a blue background"
pictures = {"without": model.generate(prompt, **options)}
for name, adapter in {
    "controlnet-seg": refiners.load_adapter("controlnet-seg"),
    "controlnet-union": refiners.load_adapter("controlnet-union"),
    "t2i-canny": refiners.load_adapter("t2i-canny"),
    "control-lora-canny": refiners.load_adapter("control-lora-canny"),
}.items():
    with adapter.on(model):
        picture = model.generate(prompt, conditions={adapter: conditions[name]}, **options)
    pictures[name] = picture
