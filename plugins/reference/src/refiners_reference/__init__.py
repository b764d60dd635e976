"""Reference-only for Refiners: take subject and style from a picture, without training."""
