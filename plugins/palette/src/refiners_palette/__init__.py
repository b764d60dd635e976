"""A colour palette for Refiners: prompt a model with colours and their shares of the picture."""
