"""Joint attention place by place: equal to attention under a mask, and no text is read where it is not told."""

import pytest
import torch
from torch import Tensor

from spectral_fusion.adapter.joint import Heads, attend_in_places
from spectral_fusion.adapter.masks import Box, Masks, Painted
from spectral_fusion.adapter.sequence import JointSequence

HEIGHT, WIDTH, CELLS = 4, 6, 24
LEFT, RIGHT, ALL = Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1), Box(0, 0, 1, 1)
SOFT = Painted(torch.linspace(0, 1, CELLS).view(HEIGHT, WIDTH))


def row(*places: object, own: int = 5, text_first: bool = False, padding: int = 0) -> JointSequence:
    shares = Masks(places, HEIGHT, WIDTH).shares(HEIGHT, WIDTH)
    lengths = [3 + number for number in range(len(places))]
    return JointSequence.of(shares, own, lengths, padding=padding, text_first=text_first)


def streams(sequence: JointSequence, seed: int = 0) -> tuple[Heads, Heads]:
    source = torch.Generator().manual_seed(seed)
    counts = (sequence.shares.shape[1], sequence.text_length)
    return tuple(Heads(*torch.randn(3, 2, 2, count, 8, generator=source)) for count in counts)


def under_a_mask(image: Heads, text: Heads, sequence: JointSequence) -> tuple[Tensor, Tensor]:
    """The same by one softmax a text over the whole row, its logits weighed by shares."""
    cells, total = image.query.shape[2], image.query.shape[2] + text.query.shape[2]
    query, key, value = (torch.cat(pair, 2) for pair in zip(image, text, strict=True))
    logits = query @ key.transpose(2, 3) / 8**0.5
    read, spoken = torch.zeros_like(image.query), torch.zeros_like(text.query)
    for part in sequence.texts:
        own = torch.zeros(total, dtype=torch.bool)
        own[cells + part.tokens.start : cells + part.tokens.stop] = True
        share = torch.zeros(cells)
        share[slice(None) if part.cells is None else part.cells] = 1.0 if part.shares is None else part.shares
        seen = torch.cat([torch.ones(cells), own[cells:].float()])
        told = torch.cat([share, own[cells:].float()])
        read += share[:, None] * ((logits + seen.log()).softmax(-1) @ value)[:, :, :cells]
        spoken[:, :, part.tokens] = ((logits + told.log()).softmax(-1) @ value)[:, :, own]
    return read, spoken


@pytest.mark.parametrize("text_first", [False, True])
@pytest.mark.parametrize(
    "places",
    [(), (ALL,), (LEFT,), (LEFT, RIGHT), (LEFT, ALL), (SOFT,), (SOFT, RIGHT), (LEFT, Box(0.7, 0.2, 0.9, 0.8), SOFT)],
)
def test_it_is_attention_under_a_mask(places: tuple, text_first: bool) -> None:
    sequence = row(*places, text_first=text_first)
    image, text = streams(sequence)
    found, expected = attend_in_places(image, text, sequence), under_a_mask(image, text, sequence)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6)


def test_a_text_that_nobody_reads_is_left_out() -> None:
    assert [text.place for text in row(LEFT).texts] == [None, 0]
    assert [text.place for text in row(LEFT, RIGHT).texts] == [0, 1]
    assert row(LEFT, RIGHT).lengths == [3, 4]
    assert row(ALL).is_plain
    assert not row(LEFT).is_plain
    third = Painted(torch.full((2, 2), 1 / 3))
    assert [text.place for text in row(third, third, third).texts] == [0, 1, 2], "thirds add up to all but a rounding"


def test_the_text_of_one_place_does_not_reach_the_tokens_of_another() -> None:
    """Bit for bit, in both directions, and through the picture's own text neither."""
    sequence = row(LEFT, Box(0.5, 0, 1, 0.5))
    image, text = streams(sequence)
    before = attend_in_places(image, text, sequence)
    second = sequence.texts[2].tokens
    changed = Heads(*(part.clone() for part in text))
    for part in changed:
        part[:, :, second] += 1
    read, spoken = attend_in_places(image, changed, sequence)
    moved = (read != before[0]).any(-1).any(1).any(0).view(HEIGHT, WIDTH)
    assert moved[:2, 3:].all()
    assert not moved[:, :3].any()
    assert not moved[2:].any()
    assert torch.equal(spoken[:, :, : second.start], before[1][:, :, : second.start])


def test_tokens_that_a_model_adds_are_in_a_place_that_is_everything_or_in_none() -> None:
    assert row(ALL, padding=3).is_plain
    half = row(LEFT, RIGHT, padding=3)
    assert [text.place for text in half.texts] == [None, 0, 1]
    assert half.texts[0].cells.tolist() == [24, 25, 26]
    assert half.strengths([0, None], "image")[:, 24:].tolist() == [[0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("text_first", [False, True])
def test_deltas_act_on_tokens_by_their_place_and_on_their_own_text(text_first: bool) -> None:
    sequence = row(LEFT, RIGHT, own=2, text_first=text_first)
    of_text = sequence.strengths([1, None], "text")
    assert of_text.tolist() == [[0, 0, 0, 1, 1, 1, 1], [1] * 7]
    joint = sequence.strengths([1, None], "joint")
    image, text = sequence.split(joint, 1)
    assert torch.equal(image, sequence.strengths([1, None], "image"))
    assert torch.equal(text, of_text)
    assert torch.equal(sequence.join(image, text, 1), joint)
    assert image[0].view(HEIGHT, WIDTH)[0].tolist() == [0, 0, 0, 1, 1, 1]
