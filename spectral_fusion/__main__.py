"""`python -m spectral_fusion`, for example under `accelerate launch -m`."""

from spectral_fusion.cli import main

if __name__ == "__main__":
    main()
