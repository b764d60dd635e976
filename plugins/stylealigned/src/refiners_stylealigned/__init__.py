"""StyleAligned for Refiners: give all pictures of a batch one style (arXiv:2312.02133)."""
