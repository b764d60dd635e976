"""Makes the tests of this folder a package of their own, beside those of the repository."""
