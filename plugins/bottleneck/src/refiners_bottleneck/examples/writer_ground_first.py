"""Bottlenecks: a language model that begins with the background.

Small networks after the layers of a small Llama (arXiv:2005.00247) turn its sentences around. The
folder has the layout of AdapterHub.
"""

import refiners

writer = refiners.load_model("playground-writer")
texts = [writer.generate("a red circle on a blue ground")]
with refiners.load_adapter("writer-ground-first").on(writer):
    texts.append(writer.generate("a red circle on a blue ground"))
print(*texts, sep="\n")

# %%
# The playground draws what the writer wrote.

model = refiners.load_model("playground")
pictures = {text: model.generate(text, seed=7, steps=12, progress=False) for text in texts}
