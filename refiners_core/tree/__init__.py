"""Trees of layers: the structure of a model, and the course of a call through it."""
