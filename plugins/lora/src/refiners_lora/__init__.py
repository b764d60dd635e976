"""LoRA for Refiners: reads the files of kohya, diffusers and PEFT (arXiv:2106.09685)."""
