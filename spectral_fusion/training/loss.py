"""The training loss of one batch."""

from torch import Tensor


def masked_mse(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error of each sample, in float32.

    prediction, target: (batch, channels, height, width); mask: (batch, 1, height, width) in [0, 1], None for all
    ones -> (batch,). A mask's error is a mean over what it shows, so a small subject counts as much as a large one.
    """
    squared = (prediction.float() - target.float()).square()
    if mask is None:
        return squared.mean(dim=(1, 2, 3))
    mask = mask.float().expand_as(squared)
    return (squared * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3)).clamp(min=1e-6)
