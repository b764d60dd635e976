"""Prefix tuning: a language model that sees green alone.

Eight learned keys and values before every text (arXiv:2101.00190) change what a small Llama
describes. The file has the layout of PEFT.
"""

import refiners

from refiners_core import Condition

writer = refiners.load_model("playground-writer")
green = refiners.load_adapter("writer-green", writer)

prompts = ["a star on a white ground"] * 2
texts = writer.generate(prompts, conditions={green: Condition(scale=[0.0, 1.0])})
print(*texts, sep="\n")

# %%
# The playground draws what the writer wrote.

model = refiners.load_model("playground")
pictures = {text: model.generate(text, seed=7, steps=12, progress=False) for text in texts}
