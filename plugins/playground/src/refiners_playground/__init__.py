"""A miniature Stable Diffusion, and the drawn scenes that it was trained on."""
