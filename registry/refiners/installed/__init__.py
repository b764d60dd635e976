"""Installed packages: their manifests, entry points and factories."""
