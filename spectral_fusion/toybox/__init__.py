"""The bundled base: Stable Diffusion in miniature, trained by this project on a world that it draws."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""A diffusers folder."""
LATENT_SIDE = 8
"""Latents of one picture are so wide and high."""
FINGERPRINT = "e0903174958b2147"
"""The fingerprint of these weights, by which they are known wherever they were copied to."""
