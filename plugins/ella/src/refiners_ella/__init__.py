"""ELLA for Refiners: a language model reads the prompts (arXiv:2403.05135)."""
