"""The steps from a name to its files: lookup, compatibility, policy and lock."""
