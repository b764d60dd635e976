"""Packages of other authors: built as wheels, installed with pip, used and uninstalled."""
