"""InstantID for Refiners: keep the identity of a face (arXiv:2401.07519)."""
