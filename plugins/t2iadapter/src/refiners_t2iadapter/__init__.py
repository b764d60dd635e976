"""T2I-Adapter for Refiners: follow a control picture at little cost (arXiv:2302.08453)."""
