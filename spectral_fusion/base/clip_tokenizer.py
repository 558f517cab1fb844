"""The tokenizer of Stable Diffusion 1.x and 2.x, built offline: single-file checkpoints do not carry it."""

import gzip
from importlib.resources import files

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(max_length: int = 77, pad_token: str = END) -> CLIPTokenizer:
    """CLIP's BPE tokenizer of 49,408 tokens.

    Args:
        max_length: tokens of a prompt with start and end, as many as the text encoder has positions.
        pad_token: `<|endoftext|>` for Stable Diffusion 1.x, `!` for 2.x.
    """
    packed = files("spectral_fusion.base").joinpath("clip_bpe/merges.txt.gz").read_bytes()
    merges = [tuple(line.split(" ")) for line in gzip.decompress(packed).decode("utf-8").splitlines()]
    letters = byte_letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=max_length, pad_token=pad_token)


def byte_letters() -> list[str]:
    """The 256 letters that stand for bytes, in CLIP's order: printable bytes as themselves, then the others."""
    letters = ByteLevel.alphabet()
    printable = sorted(letter for letter in letters if ord(letter) < 256)
    return printable + sorted(set(letters) - set(printable))
