"""Handles this machine: its disk, its errors, its shell and its threads."""
