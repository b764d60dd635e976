"""Inversion for Refiners: turn a picture back to noise, and begin a generation from it."""
