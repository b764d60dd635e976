"""Manifests: the tables of `adapter.toml` and `model.toml`, read without running any code."""
