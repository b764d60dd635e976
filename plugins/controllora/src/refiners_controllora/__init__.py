"""Control-LoRA for Refiners: a ControlNet stored as a low-rank change of the base."""
