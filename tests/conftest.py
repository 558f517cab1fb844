"""What all tests share: no network, and one tiny base."""

import os

# Before anything imports huggingface_hub: a test that reaches for the network must fail at once, not hang.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

from spectral_fusion.base.sd import StableDiffusion
from tiny import tiny_base


@pytest.fixture(scope="session")
def shared_base() -> StableDiffusion:
    """One base for every test that only reads it."""
    return tiny_base()


@pytest.fixture
def base() -> StableDiffusion:
    """A base of the test's own, with the weights of `shared_base`: attach, fuse and train on it at will."""
    return tiny_base()
