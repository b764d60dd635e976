"""The training loop on Hugging Face accelerate, and its parts."""
