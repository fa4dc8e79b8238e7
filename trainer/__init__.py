"""DDPO fine-tuning of text-to-image diffusion models; rewards are URLs."""
