"""The methods by which files change layers: a class each, chosen by the names of the weights."""
