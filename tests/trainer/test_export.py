"""What is exported draws the pictures of the policy, in diffusers without this project."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open

from trainer import checkpoints
from trainer.checkpoints import Checkpoint, RunState
from trainer.config import Config, load_config
from trainer.export import Export, Format, export
from trainer.stops import ConfigError, RunStopped
from trainer.unet_policy import UNetPolicy

RunOf = Callable[..., tuple[Config, dict[str, UNetPolicy]]]


def picture(pipe: StableDiffusionPipeline) -> np.ndarray:
    """By diffusers alone, from fixed noise."""
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    result: np.ndarray = pipe("cat", latents=noise, num_inference_steps=3, output_type="np").images
    return result


def moved(config: Config, seed: int, size: float) -> UNetPolicy:
    """The model as after some training."""
    policy, generator = UNetPolicy.load(config.model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.trainable_parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.fixture
def run_of(micro_recipe: Path) -> RunOf:
    """A run's folder with two checkpoints: `trained` and its `averaged` weights after epoch 2."""

    def build(*changes: str) -> tuple[Config, dict[str, UNetPolicy]]:
        config = load_config(micro_recipe, ["model.lora.alpha=6", *changes])
        size = 0.2 if config.model.train == "lora" else 0.02
        policies = {"trained": moved(config, 1, size), "averaged": moved(config, 2, size)}
        config.folder.mkdir(parents=True)
        (config.folder / "config.toml").write_text(config.to_toml())
        for epoch in (1, 2):
            state = RunState(
                epoch=epoch,
                reward_queries=0,
                masked=0,
                skipped_steps=0,
                skipped_in_a_row=0,
                seconds=0.0,
                metrics_bytes=0,
                prompts={},
                trackers={},
                identities={},
                config=config.model_dump(mode="json"),
            )
            weights = {name: each * epoch / 2 for name, each in policies["trained"].state().items()}
            average = policies["averaged"].state() if config.ema.decay else {}
            saved = Checkpoint(state, weights, {}, {}, average)
            checkpoints.save(config.folder / "checkpoints", saved, keep=2)
        return config, policies

    return build


def expected(config: Config, policy: UNetPolicy) -> np.ndarray:
    """The picture of a policy's own UNet, adapters and all."""
    pipe = StableDiffusionPipeline.from_pretrained(config.model.path, unet=policy._unet)
    return picture(pipe)


def loaded(config: Config, form: Format, out: Path) -> np.ndarray:
    """The picture of what was exported, by the documented call of diffusers."""
    if form == "merged":
        return picture(StableDiffusionPipeline.from_pretrained(out))
    if config.model.train == "full":
        unet = UNet2DConditionModel.from_pretrained(out, subfolder="unet")
        return picture(StableDiffusionPipeline.from_pretrained(config.model.path, unet=unet))
    pipe = StableDiffusionPipeline.from_pretrained(config.model.path)
    pipe.load_lora_weights(out)
    return picture(pipe)


@pytest.mark.parametrize("train", ["lora", "full"])
def test_pictures_of_the_policy(run_of: RunOf, tmp_path: Path, train: str) -> None:
    config, policies = run_of(f"model.train={train}")
    wanted = expected(config, policies["trained"])
    assert not np.allclose(wanted, expected(config, UNetPolicy.load(config.model)), atol=1e-2)
    forms: list[Format] = ["diffusers", "merged"]
    forms += ["kohya"] if train == "lora" else []
    for form in forms:
        out = tmp_path / "there" / f"{form}.safetensors"
        assert export(Export(config.folder, form, out)) == (out, 2)
        assert np.allclose(loaded(config, form, out), wanted, atol=1e-4), form
    assert {each.name for each in (tmp_path / "there").iterdir()} == {
        f"{form}.safetensors" for form in forms
    }


def test_averaged_and_raw_weights(run_of: RunOf, tmp_path: Path) -> None:
    config, policies = run_of("ema.decay=0.9")
    for raw, kind in ((False, "averaged"), (True, "trained")):
        out = tmp_path / f"{kind}.safetensors"
        export(Export(config.folder, "kohya", out, raw=raw))
        wanted = expected(config, policies[kind])
        assert np.allclose(loaded(config, "kohya", out), wanted, atol=1e-4)


def test_an_earlier_checkpoint(run_of: RunOf, tmp_path: Path) -> None:
    config, policies = run_of()
    for epoch, factor in ((1, 0.5), (2, 1.0)):
        out = tmp_path / f"{epoch}.safetensors"
        assert export(Export(config.folder, "kohya", out, epoch=epoch)) == (out, epoch)
        with safe_open(out, "pt") as file:
            assert file.metadata() == {
                "ss_network_module": "networks.lora",
                "ss_network_dim": "4",
                "ss_network_alpha": "6",
            }
            names = list(file.keys())
            name = next(each for each in names if each.endswith("lora_down.weight"))
            found = file.get_tensor(name)
        wanted = policies["trained"].state()
        assert any(torch.equal(found, factor * each) for each in wanted.values())


def test_what_cannot_be_exported(run_of: RunOf, tmp_path: Path) -> None:
    config, _ = run_of("model.train=full")
    (tmp_path / "taken").mkdir()
    mistakes: list[tuple[Export, str]] = [
        (Export(config.folder, "kohya", tmp_path / "a.safetensors"), "use --format merged or"),
        (Export(config.folder, "merged", tmp_path / "taken"), "is there already: remove it"),
        (Export(config.folder, "merged", tmp_path / "m", epoch=7), "no checkpoint after epoch 7"),
        (Export(tmp_path / "taken", "merged", tmp_path / "m"), "there is no run in"),
    ]
    for asked, message in mistakes:
        with pytest.raises(RunStopped, match=message):
            export(asked)
    assert not (tmp_path / "m").exists()


def test_a_file_of_adapters_has_an_ending(run_of: RunOf, tmp_path: Path) -> None:
    config, _ = run_of()
    with pytest.raises(ConfigError, match=r"must end in \.safetensors"):
        export(Export(config.folder, "kohya", tmp_path / "lora"))


def test_a_base_model_that_is_gone(run_of: RunOf, tmp_path: Path) -> None:
    config, _ = run_of()
    text = (config.folder / "config.toml").read_text()
    path = config.folder / "config.toml"
    path.write_text(text.replace(config.model.path, str(tmp_path / "gone")))
    with pytest.raises(RunStopped, match=r"model\.path .*gone' cannot be loaded"):
        export(Export(config.folder, "merged", tmp_path / "m"))
    assert not (tmp_path / "m").exists()
