"""ControlNet for Refiners: follow the lines of a picture (arXiv:2302.05543)."""
