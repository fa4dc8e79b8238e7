"""What a network says of a noised latent, and the noise that the DDIM step takes.

With x_t = √ᾱ x_0 + √(1−ᾱ) n a network predicts n itself, or the velocity
v = √ᾱ n − √(1−ᾱ) x_0 (Salimans and Ho 2022, section 4 and appendix D). Of either, and of x_t, the
other follows: n = √ᾱ v + √(1−ᾱ) x_t. The weights of v and x_t do not depend on the prompt, so it
makes no difference whether v is guided or the noise that follows from it; here, as in diffusers,
the network's own output is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Prediction:
    """One kind of output of a network.

    Attributes:
        noise: from the output, x_t and ᾱ_t to the noise ε, (P, C, h, w).
        target: from x_0, the noise n and ᾱ_t to what the output should be, (P, C, h, w).
    """

    noise: Callable[[Tensor, Tensor, Tensor], Tensor]
    target: Callable[[Tensor, Tensor, Tensor], Tensor]


def _noise_of_velocity(velocity: Tensor, noisy: Tensor, alpha: Tensor) -> Tensor:
    return alpha.sqrt() * velocity + (1 - alpha).sqrt() * noisy


def _velocity(clean: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    return alpha.sqrt() * noise - (1 - alpha).sqrt() * clean


PREDICTIONS: Mapping[str, Prediction] = {
    "epsilon": Prediction(
        noise=lambda output, _noisy, _alpha: output, target=lambda _clean, noise, _alpha: noise
    ),
    "v_prediction": Prediction(noise=_noise_of_velocity, target=_velocity),
}
"""`prediction_type` of a scheduler → what it means. ᾱ_t is (P, 1, 1, 1), fp32."""
