"""Base models as trees of named layers."""
