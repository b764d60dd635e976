"""Measures of the playground and of its adapters, which `refiners evaluate` finds by entry point."""
