"""The writer: a small language model.

A Llama of three layers describes scenes in the words of the playground. What it writes can be
drawn.
"""

import refiners

writer = refiners.load_model("playground-writer")
texts = [writer.generate(request) for request in ("a star", "a ring on a green ground")]
texts.append(writer.generate([{"role": "user", "content": "Describe two things."}]))
print(*texts, sep="\n")

# %%

model = refiners.load_model("playground")
pictures = {text: model.generate(text, seed=7, steps=12, progress=False) for text in texts}
