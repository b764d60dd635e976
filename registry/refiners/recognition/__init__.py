"""Recognises files by their headers: which adapter or model reads them, and for which base."""
