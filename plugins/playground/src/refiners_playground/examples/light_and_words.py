"""Light from a side, and prompts in free wording.

IC-Light draws an object, cut out on grey, under the light that the prompt names. ELLA reads prompts
by the playground's writer, a language model, in place of CLIP.
"""

import refiners
from refiners_playground.lesson.light import cut_out
from refiners_playground.scene import Item, Scene

model = refiners.load_model("playground")
options = {"seed": 7, "steps": 12, "progress": False}
object_on_grey = cut_out([Scene((Item("heart", "red", radius=0.5),), "white")])

pictures = {}
light = refiners.load_adapter("ic-light-fc")
with light.on(model):
    for side in ("left", "bottom"):
        prompt = f"a red heart on a white background, light from the {side}"
        conditions = {light: object_on_grey}
        pictures[f"light: {side}"] = model.generate(prompt, conditions=conditions, **options)

words = refiners.load_adapter("ella")
text = "Please show me a star. It should be green, and behind it white."
pictures["without ELLA"] = model.generate(text, **options)
with words.on(model):
    pictures["with ELLA"] = model.generate(text, **options)
