"""Trains adapters on frozen base models, and measures what adapters do."""
