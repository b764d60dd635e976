"""T2I-Adapter for Refiners: follow a picture at little cost (arXiv:2302.08453)."""
