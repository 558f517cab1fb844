"""Regional prompts: cross-attention per box, restored exactly."""

import pytest
import torch
from torch import Tensor

from spectral_fusion.base.regions import Masks, Region, RegionalAttention, regional_prompts
from spectral_fusion.base.sd import StableDiffusion
from spectral_fusion.errors import InputError
from words import encode_prompts

WHOLE = (0.0, 0.0, 1.0, 1.0)


class Echo:
    """A stand-in for cross-attention: every position gets the mean of the keys."""

    def __call__(self, attn: object, hidden_states: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        return encoder_hidden_states.mean(dim=(1, 2))[:, None, None].expand_as(hidden_states)


def attended(boxes: list[tuple[float, float, float, float]], positions: int, guided: bool = True) -> Tensor:
    """The picture's prompt answers 0, box number i answers i, the negative prompt -1; latents of 4 x 6."""
    regions = [Region("x", box) for box in boxes]
    embeddings = torch.stack([torch.full((3, 2), float(i + 1)) for i in range(len(boxes))])
    keys = torch.cat([torch.full((1, 3, 2), -1.0), torch.zeros(1, 3, 2)]) if guided else torch.zeros(1, 3, 2)
    processor = RegionalAttention(Echo(), embeddings, Masks(regions, 4, 6), guided)
    return processor(None, torch.zeros(len(keys), positions, 5), keys)


def test_each_box_answers_to_its_own_prompt_and_the_rest_to_the_pictures() -> None:
    out = attended([(0, 0, 0.5, 1), (0.5, 0.5, 1, 1)], 24)
    expected = torch.tensor([[1.0, 1, 1, 0, 0, 0]] * 2 + [[1.0, 1, 1, 2, 2, 2]] * 2)
    assert torch.equal(out[1, :, 0].reshape(4, 6), expected)
    assert (out[0] == -1).all(), "the negative prompt rules everywhere"


def test_boxes_that_overlap_share_evenly() -> None:
    out = attended([WHOLE, WHOLE, (0, 0, 0.5, 1)], 24)
    assert torch.allclose(out[1, :, 0].reshape(4, 6)[:, 3:], torch.tensor(1.5))
    assert torch.allclose(out[1, :, 0].reshape(4, 6)[:, :3], torch.tensor(2.0))


def test_without_guidance_the_whole_batch_is_conditional() -> None:
    assert (attended([WHOLE], 24, guided=False) == 1).all()


def test_coarser_levels_of_the_unet_get_coarser_masks() -> None:
    assert torch.equal(attended([(0, 0, 0.5, 1)], 6)[1, :, 0].reshape(2, 3), torch.tensor([[1.0, 0, 0]] * 2))
    tiny_box = attended([(0.4, 0.4, 0.45, 0.45)], 2)
    assert tiny_box[1].max() == 1, "a box smaller than a cell still has one"


def test_any_number_of_regions_changes_the_picture_only_where_asked(shared_base: StableDiffusion) -> None:
    """Through the real UNet; a region with the picture's own prompt changes nothing."""
    unet = shared_base.unet
    prompts = ["ugly", "a photo of a dog", "a red cat", "a green ball", "a blue house"]
    embeddings = encode_prompts(shared_base, prompts)
    sample = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1, -1)

    def predict(regions: list[Region], keys: Tensor) -> Tensor:
        with regional_prompts(shared_base.unet, regions, keys, height=16, width=16, guided=True), torch.no_grad():
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
        with regional_prompts(shared_base.unet, [region], embeddings, height=16, width=16, guided=True):
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
