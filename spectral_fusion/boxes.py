"""Boxes in pictures: left, top, right and bottom, in whatever unit."""

import torch
from torch import Tensor


def overlap(box: Tensor, boxes: Tensor) -> Tensor:
    """Intersection over union of one box with each of (n, 4)."""
    low, high = torch.maximum(box[:2], boxes[:, :2]), torch.minimum(box[2:], boxes[:, 2:])
    both = (high - low).clamp(min=0).prod(-1)
    area = (box[2:] - box[:2]).prod()
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return both / (area + areas - both).clamp(min=1e-9)
