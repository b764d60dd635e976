"""Fetches weights from Civitai."""
