"""Adapters of language models in PEFT's files: prefixes, prompts, VeRA, LN tuning, FourierFT."""
