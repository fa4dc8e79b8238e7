"""Pictures for measurements: the same at every run."""

import numpy as np
from numpy.typing import NDArray


def pictures(count: int, side: int) -> NDArray[np.uint8]:
    """Smooth noise with grain, so that a JPEG has something to do; uint8 [N,H,W,3]."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (count, side // 16, side // 16, 3))
    smooth = coarse.repeat(16, axis=1).repeat(16, axis=2)
    grain = rng.normal(0, 4, smooth.shape)
    return np.clip(smooth + grain, 0, 255).astype(np.uint8)
