"""A plan says what `trainer.sizes` says, shared among GPUs."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import Config, load_config
from trainer.plan import Plan, check_shares
from trainer.stops import ConfigError


def config(samples: int = 256, sampling: int = 8, batch: int = 64, each: int = 1) -> Config:
    return Config.model_validate(
        {
            "model": {"path": "CompVis/stable-diffusion-v1-4"},
            "sampling": {
                "samples_per_epoch": samples,
                "batch_size": sampling,
                "samples_per_prompt": each,
            },
            "training": {"batch_size": batch, "micro_batch_size": 48},
        }
    )


def test_the_published_run_on_four_gpus() -> None:
    plan = Plan.of(config(), 4)
    sizes = plan.sizes
    assert [(row.whole, row.per_gpu) for row in plan.rows()] == [
        (sizes.samples_per_epoch, 64),
        (sizes.sampling_batches_per_epoch, 8),
        (sizes.samples_per_epoch, 64),
        (64, 16),
        (sizes.pairs_per_step, 800),
        (4 * 17, 17),  # 800 pairs in micro-batches of 48
        (sizes.steps_per_epoch, None),
        (sizes.total_steps, None),
        (sizes.training_queries, 6400),
        (sizes.evaluation_queries, None),
    ]
    memory = plan.memory()
    assert memory is not None
    assert memory.trajectories == 256 * 4 * (51 * 16384 + 50)  # of all, on each
    text = plan.text()
    assert "(lora, fp32), 4 GPUs" in text
    assert re.search(r"pairs per optimiser step +3 200 +800  50 timesteps each", text)
    assert "256 samples × 51 latents of 4×64×64 in fp32" in text


def test_one_gpu_does_what_the_run_does() -> None:
    plan = Plan.of(config(), 1)
    rows = {row.name: row for row in plan.rows()}
    assert all(row.per_gpu in (None, row.whole) for row in rows.values())
    said = {row.whole for row in rows.values()}
    assert {size for name, size in plan.sizes.as_dict().items() if name != "trained_timesteps"} <= (
        said
    )


@pytest.mark.parametrize("recipe", ["emoji_alignment", "emoji_compressibility"])
def test_a_shipped_model_is_counted(recipe: str) -> None:
    text = Plan.of(load_config(recipe), 1).text()
    assert "weights of unet" in text
    assert ("one timestep each" in text) == (recipe == "emoji_alignment")


def test_a_model_that_is_not_here() -> None:
    text = Plan.of(load_config("sd14_aesthetic", ["model.path=someone/else"]), 1).text()
    assert "the files of someone/else are not on this machine" in text


@given(
    samples=st.integers(1, 96),
    sampling=st.integers(1, 12),
    batch=st.integers(1, 24),
    gpus=st.integers(1, 8),
)
def test_the_advice_is_good(samples: int, sampling: int, batch: int, gpus: int) -> None:
    asked = config(samples, sampling, batch)
    try:
        asked.sizes  # noqa: B018
    except ConfigError:
        return  # told by `trainer.sizes`
    try:
        check_shares(asked, gpus)
    except ConfigError as error:
        message = str(error)
    else:
        assert samples // sampling % gpus == 0
        assert batch % gpus == 0
        return
    advice = message.split(": use ")[1]
    if message.startswith("training.batch_size"):
        for size in re.findall(r"\d+", advice):
            check_shares(config(samples, sampling, int(size)), gpus)
        return
    counts, _, smaller = advice.partition(", or sampling.batch_size ")
    for count in re.findall(r"\d+", counts):
        assert config(int(count), sampling, batch).sizes.sampling_batches_per_epoch % gpus == 0
    if smaller:
        assert samples // int(smaller) % gpus == 0
        assert config(samples, int(smaller), batch).sizes.samples_per_epoch == samples


def test_regression_need_not_divide_its_samples() -> None:
    values = ["training.batch_size=30", "sampling.batch_size=8"]
    with pytest.raises(ConfigError, match=r"batch_size 30 cannot .* wait: use 28 or 3"):
        Plan.of(load_config("emoji_alignment", values), 4)


def test_sizes_are_told_of_a_folder_too(micro_sd: Path, micro_recipe: Path) -> None:
    plan = Plan.of(load_config(micro_recipe), 2)
    assert plan.model is not None
    assert plan.model.latent_shape == (4, 8, 8)
    assert str(micro_sd) in plan.text()
