"""Scorers from folders, as users of real bases give them: CLIP and a vision transformer in miniature."""

import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    Dinov2Config,
    Dinov2Model,
)

from spectral_fusion.base.load import open_base
from spectral_fusion.errors import InputError
from spectral_fusion.evaluate import PretrainedScorers, load_scorers
from spectral_fusion.toybox import scorers as toybox
from tiny import tiny_tokenizer

PICTURES = [Image.new("RGB", size, colour) for size, colour in (((48, 32), "red"), ((32, 32), "blue"))]
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("scorers")
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(
        text_config={**SMALL, **special, "vocab_size": len(tokenizer)},
        vision_config={**SMALL, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    square = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = CLIPImageProcessorPil(**square)
    CLIPModel(config).save_pretrained(root / "clip")
    CLIPProcessor(processor, tokenizer).save_pretrained(root / "clip")
    Dinov2Model(
        Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32)
    ).save_pretrained(root / "dino")
    processor.save_pretrained(root / "dino")
    return str(root / "clip"), str(root / "dino")


def test_embeddings_are_unit_vectors_one_for_each_picture_whatever_the_batch(folders: tuple[str, str]) -> None:
    judge = PretrainedScorers(*folders)
    seen = judge.embed_identity(PICTURES * 20)
    assert seen.shape == (40, 16)
    assert torch.allclose(seen.norm(dim=1), torch.ones(40), atol=1e-5)
    assert torch.allclose(seen[:2], judge.embed_identity(PICTURES), atol=1e-5)


def test_every_picture_is_compared_with_every_text(folders: tuple[str, str]) -> None:
    cosines = PretrainedScorers(*folders).text_alignment(PICTURES * 20, ["a red dog", "a cat", "the house on grass"])
    assert cosines.shape == (40, 3)
    assert cosines.abs().max() <= 1 + 1e-5
    assert torch.allclose(cosines[:2], cosines[2:4], atol=1e-5)


def test_toybox_has_judges_of_its_own_unless_others_are_named(folders: tuple[str, str]) -> None:
    base = open_base("toybox")
    assert load_scorers(base) is toybox
    assert isinstance(load_scorers(base, clip=folders[0], dino=folders[1]), PretrainedScorers)


@pytest.mark.parametrize("bad", ["no/such-model", "{dino}"])
def test_a_model_that_is_missing_or_of_another_kind_is_refused(folders: tuple[str, str], bad: str) -> None:
    with pytest.raises(InputError, match="scorer"):
        PretrainedScorers(bad.format(dino=folders[1]), folders[1])
