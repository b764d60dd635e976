"""Cheaper self-attention for Refiners: merge similar tokens, or attend within tiles."""
