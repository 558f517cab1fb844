"""Regional prompts: cross-attention per box, restored exactly."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from spectral_fusion.adapter.regional import RegionalAttention
from spectral_fusion.base.condition import Condition
from spectral_fusion.base.painted import mask_tensor, mask_text, read_mask, tensor_text
from spectral_fusion.base.regions import Region
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.errors import InputError
from words import encode_prompts

WHOLE = (0.0, 0.0, 1.0, 1.0)


def test_any_number_of_regions_changes_the_picture_only_where_asked(shared_base: StableDiffusion) -> None:
    """Through the real UNet; a region with the picture's own prompt changes nothing."""
    unet = shared_base.unet
    prompts = ["ugly", "a photo of a dog", "a red cat", "a green ball", "a blue house"]
    embeddings = encode_prompts(shared_base, prompts)
    sample = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1, -1)

    def predict(regions: list[Region], keys: Tensor) -> Tensor:
        with shared_base.regions(regions, Condition(keys), size=(16, 16), guided=True), torch.no_grad():
            return unet(sample, 500, embeddings[:2]).sample

    plain = predict([], embeddings[:0])
    assert torch.allclose(predict([Region("a photo of a dog", WHOLE)], embeddings[1:2]), plain, atol=1e-5)
    three = [Region(prompt, (i / 3, 0, (i + 1) / 3, 1)) for i, prompt in enumerate(prompts[2:])]
    regional = predict(three, embeddings[2:])
    assert torch.allclose(regional[0], plain[0], atol=1e-5)
    assert not torch.allclose(regional[1], plain[1], atol=1e-3)


def test_the_unet_is_as_before_afterwards(shared_base: StableDiffusion) -> None:
    before = shared_base.unet.attn_processors
    region = Region("a dog", WHOLE)
    embeddings = encode_prompts(shared_base, [region.prompt])

    def fail() -> None:
        with shared_base.regions([region], Condition(embeddings), size=(16, 16), guided=True):
            wrapped = shared_base.unet.attn_processors
            assert all(isinstance(p, RegionalAttention) == (".attn2." in name) for name, p in wrapped.items())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    after = shared_base.unet.attn_processors
    assert all(after[name] is processor for name, processor in before.items())


@pytest.mark.parametrize(
    "box", ["0,0,1.2,1", "-0.1,0,1,1", "0.5,0,0.5,1", "0,0.9,1,0.1", "0,0,1", "a,b,c,d", "0,0,1,nan", ""]
)
def test_boxes_that_cannot_be_used(box: str) -> None:
    with pytest.raises(InputError, match="a dog"):
        Region.parse("a dog", box)


def test_a_box_is_read_from_text() -> None:
    assert Region.parse("a dog", "0.05, 0.2,0.5,.95") == Region("a dog", (0.05, 0.2, 0.5, 0.95))


def test_boxes_masks_and_places_to_be_found() -> None:
    painted = tensor_text(torch.eye(4))
    assert torch.equal(Region("x", painted=painted).mask(4, 4), torch.eye(4))
    assert Region.parse("x", "auto").is_found
    assert Region("x").at(painted) == Region("x", painted=painted)
    with pytest.raises(InputError, match="no place yet"):
        Region("x").mask(4, 4)


@pytest.mark.parametrize(
    "region",
    [
        Region("a dog", (0, 0, 0.5, 1)),
        Region("", (0, 0, 0.5, 1), concepts={"rex": 1.0, "style": 0.5}),
        Region("a dog", painted=tensor_text(torch.eye(4)), concepts=(("rex", -1.0),)),
        Region("a dog"),
    ],
)
def test_a_region_is_recorded_and_read_back(region: Region) -> None:
    assert Region.from_json(json.loads(json.dumps(region.to_json()))) == region
    assert hash(region) == hash(Region.from_json(region.to_json()))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"prompt": " "}, "neither a prompt nor a concept"),
        ({"prompt": "x", "concepts": {"rex": float("nan")}}, "weight nan of 'rex'|'rex' the weight nan"),
        ({"prompt": "x", "box": (0, 0, 1, 1), "painted": tensor_text(torch.eye(2))}, "a box and a mask"),
        ({"prompt": "x", "painted": "no base64!"}, "mask cannot be read"),
        ({"prompt": "x", "painted": "aGVsbG8="}, "mask cannot be read"),
    ],
)
def test_regions_that_cannot_be_used(settings: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        Region(**settings)


def test_masks_from_files(tmp_path: Path) -> None:
    """White counts, transparent does not, large ones are made small."""
    image = Image.new("L", (400, 200))
    image.paste(255, (0, 0, 200, 200))
    image.save(tmp_path / "mask.png")
    mask = mask_tensor(read_mask(tmp_path / "mask.png"))
    assert mask.shape == (64, 128)
    assert (mask[:, :64] == 1).all()
    assert (mask[:, 64:] == 0).all()
    cut_out = Image.new("RGBA", (4, 4), (255, 255, 255, 0))
    cut_out.putpixel((0, 0), (255, 255, 255, 255))
    assert mask_tensor(mask_text(cut_out)).sum() == 1
    with pytest.raises(InputError, match="is empty"):
        mask_text(Image.new("L", (9, 9)))
    (tmp_path / "no.png").write_text("no picture")
    with pytest.raises(InputError, match="not a readable picture"):
        read_mask(tmp_path / "no.png")
    with pytest.raises(InputError, match="not a readable picture"):
        read_mask(tmp_path / "none.png")
