"""Guidance for Refiners: rules of classifier-free guidance, and passes that it leads away from."""
