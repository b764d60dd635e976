"""Helps authors of adapters: a template, and checks before publication."""
