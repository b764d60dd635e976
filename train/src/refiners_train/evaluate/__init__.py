"""Measures the effect of adapters and the skill of base models, with and without, as numbers."""
