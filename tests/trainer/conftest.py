"""The micro pipeline of the golden runs, as a policy, and pictures with their rewards."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainer.tiny_pipelines import SD_21, save_sd, save_sdxl
from trainer.policy import Policy
from trainer.sampling import Rollout, noise_seed, sample, trajectory_noise
from trainer.scores import Images
from trainer.sections import ModelSection
from trainer.unet_policy import UNetPolicy
from trainer.update import PairScorer

GOLDEN = Path(__file__).parent.parent / "golden"
STEPS = 4
GUIDANCE = 5.0


@pytest.fixture
def golden() -> Path:
    """Folder of the golden numbers."""
    return GOLDEN


@pytest.fixture
def micro_sd() -> Path:
    """Folder of the micro pipeline: 8×8 latents of 4 channels, 16×16 pictures."""
    return GOLDEN / "micro_sd"


@pytest.fixture
def lora_policy(micro_sd: Path) -> UNetPolicy:
    """The micro pipeline with adapters whose second matrix is not zero, as after some training."""
    policy = UNetPolicy.load(ModelSection(path=str(micro_sd), train="lora"), seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in policy.trainable_parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.fixture
def micro_policy(micro_sd: Path) -> Callable[[], UNetPolicy]:
    """Makes the micro pipeline with fresh adapters, the same ones at every call."""
    return lambda: UNetPolicy.load(ModelSection(path=str(micro_sd), train="lora"), seed=3)


@pytest.fixture
def full_policy(micro_sd: Path) -> UNetPolicy:
    """The micro pipeline with its whole UNet trained."""
    return UNetPolicy.load(ModelSection(path=str(micro_sd), train="full"))


@pytest.fixture
def scorer_of() -> Callable[[Policy, int], PairScorer]:
    """A rollout of some samples from a policy, ready to be scored."""

    def build(policy: Policy, count: int) -> PairScorer:
        tables = policy.tables(STEPS, eta=1.0)
        prompts = [("cat", "dog", "bird")[i % 3] for i in range(count)]
        seeds = [noise_seed(7, "test", 0, i) for i in range(count)]
        noise = trajectory_noise(seeds, STEPS, policy.latent_shape)
        rollout: Rollout = sample(policy, tables, prompts, noise, GUIDANCE)
        assert np.all(rollout.valid)
        return PairScorer.build(policy, tables, rollout, GUIDANCE)

    return build


@pytest.fixture
def micro_recipe(tmp_path: Path, micro_sd: Path) -> Path:
    """A recipe of one short epoch on the micro pipeline, with its runs in the test's folder."""
    path = tmp_path / "micro.toml"
    path.write_text(
        f"""
run = {{ dir = "{tmp_path / "runs"}", threads = 1 }}
model = {{ path = "{micro_sd}", train = "lora" }}
sampling = {{ steps = 3, batch_size = 2, samples_per_epoch = 4 }}
evaluation = {{ samples = 3 }}
tracking = {{ tensorboard = false }}
[training]
epochs = 1
batch_size = 4
micro_batch_size = 6
learning_rate = 0.05
clip_range = 1e-3
"""
    )
    return path


@pytest.fixture
def pictures() -> Callable[[int], Images]:
    """Pictures that differ in size as JPEG: more and more of each is noise."""

    def draw(count: int) -> Images:
        generator = np.random.default_rng(0)
        images = np.zeros((count, 32, 32, 3), np.uint8)
        for row, image in enumerate(images):
            image[: row + 1] = generator.integers(0, 256, image[: row + 1].shape)
        return images

    return draw


@pytest.fixture
def jpeg_rewards() -> Callable[[Images], list[float]]:
    """What the JPEG reward gives to pictures, computed here."""

    def compress(image: Images) -> float:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=95)
        return -len(buffer.getvalue()) / 1000

    return lambda images: [compress(image) for image in images]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny(kind)`: a pipeline's folder, not to be changed; see `tests.trainer.tiny_pipelines`.

    `noise` and `velocity` are Stable Diffusion by what the network predicts, `xl` and `xl_empty`
    Stable Diffusion XL, whose guidance leads away from zeros or from the empty prompt.
    """
    makers: dict[str, Callable[[Path], Path]] = {
        "noise": save_sd,
        "velocity": partial(save_sd, scheduler=SD_21),
        "xl": save_sdxl,
        "xl_empty": partial(save_sdxl, zeros_for_empty=False),
    }
    folder, made = tmp_path_factory.mktemp("tiny"), dict[str, Path]()

    def make(kind: str) -> Path:
        if kind not in made:
            with torch.random.fork_rng():
                made[kind] = makers[kind](folder / kind)
        return made[kind]

    return make
