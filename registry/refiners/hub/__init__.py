"""Fetches files from the Hub with limits on their size, verifies them, and remembers the result."""
