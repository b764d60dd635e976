"""Training data: examples, their order, batches."""
