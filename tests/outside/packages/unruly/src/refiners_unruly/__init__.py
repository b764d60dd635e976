"""A package with a fault."""
