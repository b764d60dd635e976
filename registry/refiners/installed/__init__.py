"""Installed packages: what they declare, and the code of theirs that runs."""
