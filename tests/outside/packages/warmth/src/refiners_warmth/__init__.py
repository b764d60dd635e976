"""Warms the colours of pictures."""
