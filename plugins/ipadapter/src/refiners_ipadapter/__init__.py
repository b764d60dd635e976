"""IP-Adapter for Refiners: prompt a model with a picture (arXiv:2308.06721)."""
