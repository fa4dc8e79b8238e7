"""The DDIM step against the reference, and the worked numbers of its schedule."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.ddim import DDIMTables, step_log_prob, step_mean, step_with_log_prob

CASES = 8


def sd_alphas() -> torch.Tensor:
    """ᾱ of Stable Diffusion: scaled-linear betas 0.00085 → 0.012."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0)


def sd_tables(eta: float = 1.0, count: int = 50, offset: int = 1) -> DDIMTables:
    timesteps = torch.arange(count - 1, -1, -1) * (1000 // count) + offset
    alphas = sd_alphas()
    return DDIMTables.build(alphas, float(alphas[0]), timesteps, eta)


@pytest.mark.parametrize("case", range(CASES))
def test_golden_step(golden: Path, case: int) -> None:
    with np.load(golden / "ddim_step.npz") as file:
        assert int(file["n_cases"]) == CASES
        data = {
            name.removeprefix(f"c{case}_"): torch.from_numpy(np.atleast_1d(file[name]))
            for name in file.files
            if name.startswith(f"c{case}_")
        }
        schedule = torch.from_numpy(file["timesteps_schedule"])
        alphas = torch.from_numpy(file["alphas_cumprod"])
    tables = DDIMTables.build(alphas, float(alphas[0]), schedule, float(data["eta"]))
    timesteps = data["timestep"].expand(2)
    steps = torch.tensor([int((schedule == t).nonzero()) for t in timesteps])
    prediction = data["model_output"].requires_grad_()

    assert torch.allclose(tables.sigma[steps].flatten(), data["std"].flatten(), atol=1e-6)
    mean = step_mean(tables, steps, data["sample"], prediction)
    expected = data["prev_sample_mean"]
    assert (mean - expected).abs().max() <= 2e-6 * expected.abs().max()
    log_prob = step_log_prob(tables, steps, mean, data["prev_sample_in"])
    assert torch.allclose(log_prob, data["log_prob"], rtol=0, atol=1e-5)
    assert torch.allclose(log_prob.double(), data["log_prob_f64"], rtol=0, atol=1e-5)
    log_prob.sum().backward()  # type: ignore[no-untyped-call]
    gradient = data["grad_sum_log_prob_wrt_model_output"]
    assert prediction.grad is not None
    assert (prediction.grad - gradient).abs().max() <= 1e-4 * gradient.abs().max()
    drawn, drawn_log_prob = step_with_log_prob(
        tables, steps, data["sample"], prediction.detach(), data["noise"]
    )
    expected = data["sampled_prev_sample"]
    assert (drawn - expected).abs().max() <= 2e-6 * expected.abs().max()
    assert torch.allclose(drawn_log_prob, data["sampled_log_prob"], rtol=0, atol=1e-5)


# x = 0.5, ε = 0.1, x_prev = 0.45, everywhere; computed by hand in fp64.
@pytest.mark.parametrize(
    ("timestep", "eta", "mean", "sigma", "log_prob"),
    [
        (981, 1.0, 0.538132, 0.454463, -0.149104),
        (501, 1.0, 0.513109, 0.294785, 0.279656),
        (501, 0.5, 0.517173, 0.147392, 0.891868),
        (1, 1.0, 0.498142, 0.020648, 0.243142),
    ],
)
def test_worked_numbers(
    timestep: int, eta: float, mean: float, sigma: float, log_prob: float
) -> None:
    tables = sd_tables(eta)
    steps = (tables.timesteps == timestep).nonzero().flatten()
    ones = torch.ones(1, 4, 2, 2)
    mu = step_mean(tables, steps, 0.5 * ones, 0.1 * ones)
    assert mu.flatten().tolist() == pytest.approx([mean] * 16, abs=2e-6)
    assert tables.sigma[steps].item() == pytest.approx(sigma, abs=1e-6)
    assert step_log_prob(tables, steps, mu, 0.45 * ones).item() == pytest.approx(log_prob, abs=5e-6)


def test_the_schedule_falls_and_its_last_step_has_noise() -> None:
    tables = sd_tables()
    assert tables.timesteps.tolist() == list(range(981, 0, -20))
    assert len(tables) == 50
    assert (tables.sigma > 0).all()


@pytest.mark.parametrize(("eta", "offset"), [(0.0, 1), (1.0, 0)])
def test_a_step_without_noise_is_refused(eta: float, offset: int) -> None:
    # Without an offset the last step goes from t = 0 to t = 0.
    with pytest.raises(ValueError, match="has no noise"):
        sd_tables(eta, offset=offset)


@given(
    steps=st.lists(st.integers(0, 49), min_size=1, max_size=6),
    eta=st.floats(0.1, 1.0),
    seed=st.integers(0, 2**32),
)
def test_a_pair_does_not_depend_on_its_batch_mates(steps: list[int], eta: float, seed: int) -> None:
    tables, index = sd_tables(eta), torch.tensor(steps)
    generator = torch.Generator().manual_seed(seed)
    latents, prediction, noise = torch.randn(3, len(steps), 4, 3, 3, generator=generator)
    drawn, log_prob = step_with_log_prob(tables, index, latents, prediction, noise)
    again = step_log_prob(tables, index, step_mean(tables, index, latents, prediction), drawn)
    assert torch.equal(log_prob, again)
    for i in range(len(steps)):
        part = slice(i, i + 1)
        alone, alone_log_prob = step_with_log_prob(
            tables, index[part], latents[part], prediction[part], noise[part]
        )
        assert torch.equal(alone[0], drawn[i])
        assert torch.allclose(alone_log_prob, log_prob[part], rtol=0, atol=1e-6)


def test_the_log_probability_is_a_mean_over_the_latent() -> None:
    tables, steps = sd_tables(), torch.zeros(1, dtype=torch.int64)
    small, large = torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 16, 16)
    expected = step_log_prob(tables, steps, small, small + 0.3)
    assert step_log_prob(tables, steps, large, large + 0.3) == pytest.approx(expected, abs=1e-6)


def test_what_was_drawn_is_a_constant() -> None:
    tables, steps = sd_tables(), torch.zeros(1, dtype=torch.int64)
    mean = torch.zeros(1, 4, 2, 2, requires_grad=True)
    drawn = torch.full((1, 4, 2, 2), 0.3, requires_grad=True)
    step_log_prob(tables, steps, mean, drawn).sum().backward()  # type: ignore[no-untyped-call]
    assert drawn.grad is None
    assert mean.grad is not None
