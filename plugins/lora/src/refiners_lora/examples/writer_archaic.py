"""A LoRA of a language model: the speech of old.

The same low-rank changes on a small Llama. The scale moves its words, and one text of a batch may
have the adapter while another has not.
"""

import refiners

from refiners_core import Condition

writer = refiners.load_model("playground-writer")
archaic = refiners.load_adapter("writer-archaic", writer)

prompts = ["a red circle on a blue ground"] * 2
texts = writer.generate(prompts, conditions={archaic: Condition(scale=[0.0, 1.0])})
print(*texts, sep="\n")

# %%
# The playground draws what the writer wrote.

model = refiners.load_model("playground")
pictures = {text: model.generate(text, seed=7, steps=12, progress=False) for text in texts}
