"""The Hub: files fetched, bounded, verified and remembered."""
