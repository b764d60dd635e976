"""FreeU and FreSca for Refiners: features and guidance scaled by frequency, without training."""
