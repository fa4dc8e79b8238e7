"""The derived sizes of a run."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.sections import EvaluationSection, RWRSection, SamplingSection, TrainingSection
from trainer.sizes import Sizes
from trainer.stops import ConfigError


def derive(
    samples: int = 256,
    sampling_batch: int = 8,
    batch: int = 64,
    steps: int = 50,
    fraction: float = 1.0,
    window: tuple[float, float] = (0.0, 1.0),
    each: int = 1,
) -> Sizes:
    return Sizes.derive(
        SamplingSection(
            samples_per_epoch=samples,
            batch_size=sampling_batch,
            steps=steps,
            samples_per_prompt=each,
        ),
        TrainingSection(
            batch_size=batch,
            timestep_fraction=fraction,
            timestep_window=window,
            micro_batch_size=48,
            epochs=3,
            inner_epochs=2,
        ),
        RWRSection(updates=7),
        EvaluationSection(samples=10),
    )


def test_the_published_sizes() -> None:
    assert derive().as_dict() == {
        "samples_per_epoch": 256,
        "sampling_batches_per_epoch": 32,
        "trained_timesteps": 50,
        "pairs_per_step": 3200,
        "micro_batches_per_step": 67,
        "steps_per_epoch": 8,
        "total_steps": 24,
        "training_queries": 768,
        "evaluation_queries": 10,
    }


def test_a_fraction_of_the_timesteps_is_rounded_down() -> None:
    assert derive(steps=5, fraction=0.5).trained_timesteps == 2
    with pytest.raises(
        ConfigError, match=r"0.1 of the 5 sampling.steps .* raise it to at least 0.2"
    ):
        derive(steps=5, fraction=0.1)


def test_a_window_of_the_timesteps() -> None:
    assert derive(steps=10, window=(0.0, 0.5)).trained_timesteps == 5
    assert derive(steps=10, window=(0.2, 0.7), fraction=0.5).trained_timesteps == 2
    # 0.6 of 5 is 2.9999… as a product of floats.
    assert derive(steps=5, window=(0.0, 0.6)).trained_timesteps == 3
    with pytest.raises(ConfigError, match=r"\[0.5, 0.52\] holds none of the 10 sampling.steps"):
        derive(steps=10, window=(0.5, 0.52))


def test_prompts_are_sampled_equally_often() -> None:
    assert derive(each=4).samples_per_epoch == 256
    with pytest.raises(ConfigError, match=r"not a multiple of sampling\.samples_per_prompt 3"):
        derive(each=3)


@given(samples=st.integers(1, 300), size=st.integers(1, 300))
def test_the_advice_is_good(samples: int, size: int) -> None:
    if samples % size == 0:
        assert derive(samples, 1, size).steps_per_epoch == 2 * samples // size
        return
    with pytest.raises(ConfigError) as caught:
        derive(samples, 1, size)
    message = str(caught.value)
    assert f"{samples} is not a multiple of training.batch_size {size}" in message
    advised, divisor = message.split(": use ")[1].split(" samples per epoch, or ")
    for number in re.findall(r"\d+", advised):
        assert derive(int(number), 1, size).samples_per_epoch == int(number)
    assert samples % int(divisor.split()[-1]) == 0


def test_the_sampling_batch_divides_too() -> None:
    with pytest.raises(ConfigError, match=r"multiple of sampling.batch_size 7: use 252 or 259"):
        derive(sampling_batch=7)
