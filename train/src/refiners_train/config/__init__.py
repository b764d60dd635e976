"""The configuration of a training: its form, its reading, its checks, its templates."""
