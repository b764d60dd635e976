"""Base models, said as trees that can be read aloud."""
