"""Stable Diffusion 3 in miniature: a joint-attention transformer on the latents and the words of toybox128."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""A diffusers folder."""
LATENT_SIDE = 16
"""Latents of one picture are so wide and high."""
FINGERPRINT = "9b4b2386f53d5b34"
"""The fingerprint of the transformer's weights, by which they are known wherever they were copied to."""
T5_TOKENS = 2
"""As many say nothing as well as 256 do, at a third of the cost; fewer the tokenizer cannot give."""
