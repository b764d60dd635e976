"""Choices between a name and its files: lookup, compatibility, policy, lock."""
