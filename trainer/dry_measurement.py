"""What a dry step of a run took; apart from what makes the step, which needs torch."""

from dataclasses import dataclass
from typing import Literal

Stage = Literal["loading", "sampling", "updating"]


@dataclass(frozen=True)
class Measured:
    """What a dry step took; bytes and seconds.

    Attributes:
        device: where it ran.
        device_name: what that is.
        device_memory: bytes that a run may take there, None where the system does not say.
        taken: bytes of a CUDA device that were taken before.
        peaks: stage → most bytes that this process held in it.
        kept: bytes that it held when the model was loaded, before any picture.
        trajectories: bytes of the trajectories of one batch, as far as the device keeps them.
        seconds: stage → how long it took.
        picture: (height, width) of the pictures.
        trained: trained weights.
    """

    device: str
    device_name: str
    device_memory: int | None
    taken: int
    peaks: dict[Stage, int]
    kept: int
    trajectories: int
    seconds: dict[Stage, float]
    picture: tuple[int, int]
    trained: int
