"""StyleAligned for Refiners: the pictures of a batch share one style (arXiv:2312.02133)."""
