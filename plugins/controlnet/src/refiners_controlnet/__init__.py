"""ControlNet for Refiners: follow the edges, depth or pose of a picture (arXiv:2302.05543)."""
