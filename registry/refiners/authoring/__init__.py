"""Tools for authors of adapters: a template, and checks before publishing."""
