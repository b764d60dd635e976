"""Bottleneck adapters of language models for Refiners, and their fusion (arXiv:1902.00751)."""
