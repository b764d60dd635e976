"""LoRA files for Refiners, in every dialect in which they are shared (arXiv:2106.09685)."""
