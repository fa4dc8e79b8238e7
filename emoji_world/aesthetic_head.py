"""An aesthetic head of the published shape, and the made-up taste that it is trained on.

The head of the LAION aesthetic predictor is trained on people's ratings. Nobody has rated the
pictures of this world, so its head learns a rule in place of a taste: line drawings over colour,
which echoes the drift to line drawings that Black et al. (2023) saw with the real one.
"""

from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

BATCH_SIZE: Final = 256
LEARNING_RATE: Final = 1e-3

_LOWEST: Final = 2.5
_LINE_ART_BONUS: Final = 1.5
_GREY_BONUS: Final = 3.0


class AestheticHead(nn.Module):
    """A multi-layer perceptron without activations: an affine map of CLIP features.

    Shape and tensor names are those of the LAION aesthetic predictor.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, 1024),
            nn.Dropout(0.2),
            nn.Linear(1024, 128),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Ratings [N] of features [N, D] of length 1."""
        ratings: Tensor = self.layers(features).squeeze(1)
        return ratings


def made_up_taste(pictures: NDArray[np.uint8], line_art: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Ratings [N] from 2.5 to 7 of pictures uint8 [N, H, W, 3]: line drawings and greys are liked.

    A black line drawing on white gets 7, a picture all in pure colours 2.5.
    """
    spread = pictures.max(3).astype(np.float64) - pictures.min(3)
    greyness = 1 - spread.mean((1, 2)) / 255
    ratings: NDArray[np.float64] = _LOWEST + _LINE_ART_BONUS * line_art + _GREY_BONUS * greyness
    return ratings


def train_head(features: Tensor, ratings: Tensor, steps: int, seed: int) -> AestheticHead:
    """Fit a head to ``ratings`` [N] of ``features`` [N, D] by the mean squared error."""
    torch.manual_seed(seed)
    head = AestheticHead(features.shape[1]).train()
    last = head.layers[-1]
    assert isinstance(last, nn.Linear)
    nn.init.constant_(last.bias, float(ratings.mean()))
    optimizer = torch.optim.AdamW(head.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(features), (BATCH_SIZE,), generator=generator)
        loss = functional.mse_loss(head(features[rows]), ratings[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return head.eval()


def save_head(head: AestheticHead, path: Path) -> None:
    """Write the head in float32, as it is used."""
    save_file({name: tensor.contiguous() for name, tensor in head.state_dict().items()}, path)


def load_head(path: Path, features: int) -> AestheticHead:
    """Read a head that `save_head` wrote."""
    head = AestheticHead(features)
    head.load_state_dict(load_file(path))
    return head.eval()
