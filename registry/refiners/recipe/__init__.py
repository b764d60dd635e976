"""Recipes of pictures: their form, and their reading from files of this and other programs."""
