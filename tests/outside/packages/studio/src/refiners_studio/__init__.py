"""A diffusion model of sizes of its own."""
