"""Measures of the playground and its adapters; `refiners evaluate` finds them by entry point."""
