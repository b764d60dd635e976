"""IP-Adapter for Refiners: be prompted by a picture (arXiv:2308.06721)."""
