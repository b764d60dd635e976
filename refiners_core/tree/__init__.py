"""Trees of layers: what a model is made of, and how a call runs through it."""
