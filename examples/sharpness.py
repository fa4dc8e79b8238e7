"""A reward that explains itself and may refuse: how sharp is the picture, in grey levels?"""

from collections.abc import Sequence

import numpy as np

from reward_services import ItemError, Scored, ScoreItem

SMALLEST = 3  # pixels that a second difference takes


class Sharpness:
    """Standard deviation of the Laplacian of the picture's luma (ITU-R BT.601)."""

    name = "sharpness"
    version = "laplacian-1"
    units = "grey levels"
    direction = "maximize"
    range = (0.0, None)
    max_batch_size = 32
    needs_prompt = False

    def score(self, items: Sequence[ScoreItem]) -> list[Scored | ItemError]:
        """One outcome per item, in the order given."""
        return [self._one(item) for item in items]

    def _one(self, item: ScoreItem) -> Scored | ItemError:
        height, width, _ = item.image.shape
        if min(height, width) < SMALLEST:
            return ItemError(f"{width} × {height} pixels are too few: send at least 3 × 3")
        luma = item.image @ np.array([0.299, 0.587, 0.114])
        middle = luma[1:-1, 1:-1]
        around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
        laplacian = around - 4 * middle
        return Scored(
            float(laplacian.std()),
            {"strongest_edge": float(np.abs(laplacian).max()), "pixels": height * width},
        )
