"""Textual inversion for Refiners: learned words in prompts (arXiv:2208.01618)."""
