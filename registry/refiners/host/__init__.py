"""This machine: its disk, its faults, its terminal and its threads."""
