"""What all tests share: no network, and one tiny base."""

import os

# Before anything imports huggingface_hub: a test that reaches for the network must fail at once, not hang.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from diffusers import StableDiffusionPipeline

from tiny import tiny_pipeline


@pytest.fixture(scope="session")
def shared_pipeline() -> StableDiffusionPipeline:
    """One base for every test that only reads it."""
    return tiny_pipeline()


@pytest.fixture
def pipeline() -> StableDiffusionPipeline:
    """A base of the test's own, with the weights of `shared_pipeline`: attach, fuse and train on it at will."""
    return tiny_pipeline()
