"""Caches for Refiners: fewer and shorter passes of the network for one picture."""
