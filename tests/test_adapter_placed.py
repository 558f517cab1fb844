"""Deltas bound to places: each acts in its mask, on its own text, in its part of the steps, and nowhere else."""

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from spectral_fusion.adapter.masks import Box, Masks, Painted
from spectral_fusion.adapter.placed import PlacedDelta, Placement, placed
from spectral_fusion.adapter.regional import RegionalAttention
from spectral_fusion.errors import InputError
from spectral_fusion.spectral import Factors, as_matrix

LEFT, RIGHT, ALL = Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1), Box(0, 0, 1, 1)
HEIGHT, WIDTH = 4, 6


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def factors(layer: nn.Module, rank: int = 2, seed: int = 0) -> Factors:
    rows, columns = as_matrix(layer.weight).shape
    return Factors(random(rows, rank, seed=seed), random(rank, columns, seed=seed + 1))


def linear() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return nn.Linear(5, 7), random(2, HEIGHT * WIDTH, 5)


def convolution() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return nn.Conv2d(3, 7, 3, padding=1, padding_mode="circular"), random(2, 3, HEIGHT, WIDTH)


def cells(y: Tensor) -> Tensor:
    """(batch, height, width, channels) of what a layer gave."""
    return y.movedim(1, -1) if y.ndim == 4 else y.unflatten(1, (HEIGHT, WIDTH))


def with_delta(layer: nn.Module, x: Tensor, *deltas: tuple[Factors, float]) -> Tensor:
    """What the layer would give with the deltas in its weight."""
    weight = layer.weight + sum(w * (f.up @ f.down).view(layer.weight.shape) for f, w in deltas)
    return nn.functional.linear(x, weight, layer.bias) if x.ndim == 3 else layer._conv_forward(x, weight, layer.bias)


@pytest.mark.parametrize("make", [linear, convolution])
def test_each_place_is_as_with_its_own_delta_and_the_rest_exactly_as_the_base(make) -> None:
    layer, x = make()
    first, second = factors(layer, 2), factors(layer, 3, seed=5)
    deltas = [PlacedDelta({"l": first}, 0.5, 0), PlacedDelta({"l": second}, -1.0, 1)]
    masks = Masks([LEFT, Box(0.5, 0, 1, 0.5)], HEIGHT, WIDTH)
    plain = cells(layer(x))
    with placed({"l": layer}, {"l": "image"}, deltas, masks), torch.no_grad():
        found = cells(layer(x))
    assert torch.equal(found[:, 2:, 3:], plain[:, 2:, 3:]), "outside, not a bit is changed"
    torch.testing.assert_close(found[:, :, :3], cells(with_delta(layer, x, (first, 0.5)))[:, :, :3])
    torch.testing.assert_close(found[:, :2, 3:], cells(with_delta(layer, x, (second, -1.0)))[:, :2, 3:])
    assert torch.equal(cells(layer(x)), plain), "and afterwards nothing is"


@pytest.mark.parametrize("make", [linear, convolution])
def test_overlapping_places_share_by_their_sum_and_global_deltas_act_everywhere(make) -> None:
    layer, x = make()
    one, two, style = (factors(layer, seed=seed) for seed in (0, 3, 6))
    deltas = [PlacedDelta({"l": one}, place=0), PlacedDelta({"l": two}, place=1), PlacedDelta({"l": style}, 0.3)]
    with placed({"l": layer}, {"l": "image"}, deltas, Masks([ALL, LEFT], HEIGHT, WIDTH)), torch.no_grad():
        found = cells(layer(x))
    left = with_delta(layer, x, (one, 0.5), (two, 0.5), (style, 0.3))
    right = with_delta(layer, x, (one, 1), (style, 0.3))
    torch.testing.assert_close(found[:, :, :3], cells(left)[:, :, :3])
    torch.testing.assert_close(found[:, :, 3:], cells(right)[:, :, 3:])


def test_text_is_changed_while_its_own_region_passes() -> None:
    layer, _ = linear()
    text = random(1, 9, 5)
    one, two, style = (factors(layer, seed=seed) for seed in (0, 3, 6))
    deltas = [PlacedDelta({"l": one}, place=0), PlacedDelta({"l": two}, place=1), PlacedDelta({"l": style})]
    with placed({"l": layer}, {"l": "text"}, deltas, Masks([LEFT, RIGHT], HEIGHT, WIDTH)) as placement, torch.no_grad():
        torch.testing.assert_close(layer(text), with_delta(layer, text, (style, 1)))
        with placement.passing(1):
            torch.testing.assert_close(layer(text), with_delta(layer, text, (two, 1), (style, 1)))
        torch.testing.assert_close(layer(text), with_delta(layer, text, (style, 1)))


def test_what_serves_the_whole_picture_changes_for_a_place_that_is_all_of_it() -> None:
    layer, _ = linear()
    time, delta = random(2, 5), factors(layer)
    for place, changes in ((LEFT, False), (ALL, True), (None, True)):
        bound = PlacedDelta({"l": delta}, place=None if place is None else 0)
        masks = Masks([place or LEFT], HEIGHT, WIDTH)
        with placed({"l": layer}, {"l": "whole"}, [bound], masks), torch.no_grad():
            assert torch.equal(layer(time), nn.functional.linear(time, layer.weight, layer.bias)) != changes


def test_from_a_step_to_a_step() -> None:
    layer, x = linear()
    deltas = [PlacedDelta({"l": factors(layer)}, place=0, start=0.25, end=0.5)]
    plain = layer(x)
    with placed({"l": layer}, {"l": "image"}, deltas, Masks([ALL], HEIGHT, WIDTH)) as placement, torch.no_grad():
        changed = []
        for progress in (0.0, 0.25, 0.49, 0.5, 0.99):
            placement.advance(progress)
            changed.append(not torch.equal(layer(x), plain))
    assert changed == [False, True, True, False, False]


def test_any_number_of_deltas_costs_two_products(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = linear()
    deltas = [PlacedDelta({"l": factors(layer, seed=i)}, place=i) for i in range(16)]
    masks = Masks([Box(i / 16, 0, (i + 1) / 16, 1) for i in range(16)], HEIGHT, WIDTH)
    calls = []
    monkeypatch.setattr(torch, "addmm", lambda *a, f=torch.addmm: calls.append(1) or f(*a))
    with placed({"l": layer}, {"l": "image"}, deltas, masks), torch.no_grad():
        layer(x)
    assert len(calls) == 1


def test_hooks_are_gone_after_an_error() -> None:
    layer, x = linear()
    layers, kinds, masks = {"l": layer}, {"l": "image"}, Masks([], 4, 6)
    unknown = PlacedDelta({"l": factors(layer), "missing": factors(layer)})
    with pytest.raises(KeyError, match="missing"), placed(layers, kinds, [unknown], masks):
        pass
    assert not layer._forward_hooks
    with pytest.raises(RuntimeError), placed(layers, kinds, [PlacedDelta({"l": factors(layer)})], masks):
        layer(x[..., :2])
    assert not layer._forward_hooks


def test_half_precision_stays_half() -> None:
    layer, x = linear()
    layer, x = layer.bfloat16(), x.bfloat16()
    with placed({"l": layer}, {"l": "image"}, [PlacedDelta({"l": factors(layer)}, place=0)], Masks([LEFT], 4, 6)):
        assert layer(x).dtype == torch.bfloat16


def test_masks_at_each_level() -> None:
    masks = Masks([LEFT, ALL], 5, 6)
    assert masks.size(30) == (5, 6)
    assert masks.size(9) == (3, 3)
    shares = masks.shares(5, 6)
    assert torch.equal(shares.sum(0), torch.ones(30))
    assert torch.equal(shares[0].view(5, 6)[0], torch.tensor([0.5, 0.5, 0.5, 0, 0, 0]))
    assert masks.shares(1, 1).shape == (2, 1)


@pytest.mark.parametrize("size", [(8, 12), (2, 3), (37, 51)])
def test_painted_masks_of_any_size_are_averaged(size: tuple[int, int]) -> None:
    painted = torch.zeros(*size)
    painted[:, : size[1] // 3] = 1
    mask = Painted(painted).mask(HEIGHT, WIDTH)
    assert mask.shape == (HEIGHT, WIDTH)
    assert (mask >= 0).all()
    assert (mask <= 1).all()
    assert mask[:, 0].min() > 0.5
    assert mask[:, 4:].max() < 0.2
    assert abs(mask.mean() - painted.mean()) < 0.05


def echo() -> Attention:
    """Cross-attention that gives what the text says: every cell gets the mean of the values."""
    attn = Attention(2, cross_attention_dim=2, heads=1, dim_head=2, out_bias=False)
    for layer in (attn.to_v, attn.to_out[0]):
        layer.weight.data = torch.eye(2)
    return attn


def attended(places: list, rows: int = 2, positions: int = HEIGHT * WIDTH) -> Tensor:
    """The picture's text answers 0 and -0.5, that of place i i and -i; (rows, height, width)."""
    texts = [torch.tensor([-(i + 1.0), i + 1.0])[:, None, None].expand(2, 3, 2) for i in range(len(places))]
    own = torch.tensor([-0.5, 0.0]).repeat_interleave(rows // 2)[:, None, None].expand(rows, 3, 2)
    with placed({}, {}, [], Masks(places, HEIGHT, WIDTH)) as placement, torch.no_grad():
        return RegionalAttention(texts, placement)(echo(), torch.zeros(rows, positions, 2), own)[..., 0]


def test_each_place_reads_its_own_text_in_both_halves() -> None:
    out = attended([LEFT, Box(0.5, 0.5, 1, 1)], rows=4).view(4, HEIGHT, WIDTH)
    expected = torch.tensor([[1.0, 1, 1, 0, 0, 0]] * 2 + [[1.0, 1, 1, 2, 2, 2]] * 2)
    assert torch.equal(out[2], expected)
    assert torch.equal(out[3], expected)
    assert torch.equal(out[0], torch.where(expected == 0, -0.5, -expected))


def test_soft_and_overlapping_places_mix_what_was_read() -> None:
    half = Painted(torch.full((2, 3), 0.25))
    assert torch.allclose(attended([half])[1], torch.tensor(0.25))
    assert torch.allclose(attended([ALL, ALL])[1], torch.tensor(1.5))


def test_the_pictures_own_text_is_read_as_diffusers_reads_it_and_once_for_all_steps() -> None:
    torch.manual_seed(0)
    attn = Attention(8, cross_attention_dim=6, heads=2, dim_head=4)
    x, text, other = random(2, HEIGHT * WIDTH, 8), random(2, 5, 6, seed=1), random(2, 5, 6, seed=2)
    asked = []
    attn.to_k.register_forward_hook(lambda *_: asked.append(1))
    with placed({}, {}, [], Masks([LEFT], HEIGHT, WIDTH)) as placement, torch.no_grad():
        processor = RegionalAttention([other], placement)
        for _ in range(3):
            found = processor(attn, x, text)
        assert len(asked) == 2
        left, right = attn(x, other), attn(x, text)
    expected = torch.cat(
        [left.unflatten(1, (HEIGHT, WIDTH))[:, :, :3], right.unflatten(1, (HEIGHT, WIDTH))[:, :, 3:]], 2
    )
    torch.testing.assert_close(found.unflatten(1, (HEIGHT, WIDTH)), expected)


def test_attention_of_another_kind_is_refused() -> None:
    attn = Attention(8, cross_attention_dim=6, heads=2, dim_head=4, qk_norm="layer_norm")
    processor = RegionalAttention([random(1, 5, 6)], Placement([], Masks([LEFT], HEIGHT, WIDTH)))
    with pytest.raises(InputError, match="cannot be split into regions"):
        processor(attn, random(2, 24, 8), random(2, 5, 6))
