"""spectral-fusion: several subjects in one picture, each still itself."""

__version__ = "0.1.0"
