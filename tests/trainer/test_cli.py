"""The command line: what it takes, and one clear line for every mistake."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from trainer import cli
from trainer.recipe_files import recipe_names

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess

REWARD = "jpeg_compressibility=http://127.0.0.1:9"


def ddpo(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit status of a command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["ddpo", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_command_line_does_without_torch() -> None:
    code = "import sys, trainer.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--recipe nosuch", "no recipe named 'nosuch' and no such file; recipes: emoji_"),
        ("--recipe emoji_compressibility", "no reward is named: add --reward NAME=URL"),
        (f"--recipe {{micro}} --reward {REWARD} --set training.learing_rate=1",
         "unknown setting training.learing_rate (did you mean learning_rate?)"),
        (f"--recipe {{micro}} --reward {REWARD} --set training.batch_size=3",
         "sampling.samples_per_epoch 4 is not a multiple of training.batch_size 3: use 3 or 6"),
        (f"--recipe {{micro}} --reward {REWARD} --set sampling.eta=0", "sampling.eta"),
        (f"--recipe {{micro}} --reward {REWARD} --set training",
         "--set 'training' is not of the form section.key=value"),
        (f"--recipe {{micro}} --reward {REWARD} --algorithm ddpo_sf --set training.batch_size=2",
         "ddpo_sf makes one update per epoch"),
        (f"--recipe {{micro}} --reward {REWARD} --set run.seed=x", "run.seed"),
        (f"--recipe {{micro}} --reward {REWARD} --name a/b", "run.name"),
        (f"--recipe {{micro}} --reward {REWARD} --resume", "there is no run to resume in"),
        (f"--recipe {{micro}} --reward {REWARD} --set prompts.source=nosuch",
         "prompts.source 'nosuch' is neither a prompt set"),
        (f"--recipe {{micro}} --reward {REWARD} --set evaluation.prompts=nosuch",
         "evaluation.prompts 'nosuch' is neither a prompt set"),
        (f"--recipe {{micro}} --reward {REWARD} --monitor judge", "--monitor 'judge' is not of"),
        (f"--recipe {{micro}} --reward {REWARD}",
         "the reward service jpeg_compressibility at http://127.0.0.1:9 cannot be reached"),
        (f"--recipe {{micro}} --reward {REWARD} --reward {REWARD}", "given twice"),
        ("--recipe {micro} --reward localhost:8001", "is not of the form NAME=URL"),
        ("--recipe {micro} --reward jpeg=localhost:8001", "rewards.jpeg"),
        (f"--recipe {{micro}} --reward {REWARD} --set rewards.jpeg_compressibility.api_key_env=NO",
         "rewards.jpeg_compressibility.api_key_env names NO, which is not set"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    micro_recipe: Path,
    options: str,
    message: str,
) -> None:
    arguments = options.replace("{micro}", str(micro_recipe)).split()
    assert ddpo(monkeypatch, "train", *arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1
    assert not (micro_recipe.parent / "runs").exists()


def test_a_folder_that_is_no_pipeline(
    service: "ServiceProcess",
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    micro_recipe: Path,
) -> None:
    options = ["--recipe", str(micro_recipe), "--reward", f"jpeg={service.url}"]
    override = f"model.path={micro_recipe.parent}"
    assert ddpo(monkeypatch, "train", *options, "--set", override) == 1
    said = capsys.readouterr().err
    assert "is not a diffusers pipeline: it holds no model_index.json" in said
    assert said.count("\n") == 1
    assert not (micro_recipe.parent / "runs").exists()


def test_a_device_that_is_not_there(
    service: "ServiceProcess",
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    micro_recipe: Path,
) -> None:
    options = ["--recipe", str(micro_recipe), "--reward", f"jpeg={service.url}"]
    assert ddpo(monkeypatch, "train", *options, "--set", "run.device=quantum") == 1
    assert "run.device 'quantum' cannot be used here" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], micro_recipe: Path
) -> None:
    (micro_recipe.parent / "taken").write_text("a file, no folder")
    options = ["--prompt", "a cat", "--out", str(micro_recipe.parent / "taken" / "cat.png")]
    model = Path(__file__).parent.parent / "golden" / "micro_sd"
    assert ddpo(monkeypatch, "sample", "--model", str(model), "--steps", "2", *options) == 1
    said = capsys.readouterr().err
    assert "taken" in said
    assert "Traceback" not in said


def test_recipes_are_listed_and_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ddpo(monkeypatch, "recipes") == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == recipe_names()
    assert ddpo(monkeypatch, "recipes", "emoji_compressibility") == 0
    assert 'path = "emoji_world/models/diffusion"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--out cat.png", "give either --model or --run"),
        ("--out cat.png --model a --run b", "give either --model or --run"),
        ("--out cat.jpg --model a", "must end in .png"),
        ("--out cat.png --run nosuch", "is not the folder of a run"),
        ("--out cat.png --model ./nosuch", "no such folder"),
    ],
)
def test_sampling_mistakes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    assert ddpo(monkeypatch, "sample", "--prompt", "a cat", *options.split()) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_run_is_started_or_continued(
    service: "ServiceProcess",
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    micro_recipe: Path,
) -> None:
    """The same command does for a container that may have been killed before."""
    options = ["--recipe", str(micro_recipe), "--reward", f"jpeg={service.url}", "--continue"]
    assert ddpo(monkeypatch, "train", *options) == 0
    assert "resumed" not in capsys.readouterr().out
    assert ddpo(monkeypatch, "train", *options) == 0
    said = capsys.readouterr().out
    assert "resumed after epoch 1" in said
    assert "epoch 1/1:" not in said


@pytest.mark.parametrize("command", ["report", "guard"])
def test_what_reads_a_run_needs_one(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: str,
) -> None:
    assert ddpo(monkeypatch, command, str(tmp_path)) == 1
    assert "there is no run in" in capsys.readouterr().err


def test_evaluate_needs_rewards_and_prompts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run, prompts = str(tmp_path), ("--prompts", "animals")
    for options, missing in ((("--reward", REWARD), "--prompts"), (prompts, "--reward")):
        assert ddpo(monkeypatch, "evaluate", run, *options) == 2
        assert missing in capsys.readouterr().err
    assert ddpo(monkeypatch, "evaluate", run, "--reward", "jpeg", *prompts) == 1
    assert "--reward 'jpeg' is not of the form NAME=URL" in capsys.readouterr().err
    assert ddpo(monkeypatch, "evaluate", run, "--reward", REWARD, *prompts) == 1
    assert "there is no run in" in capsys.readouterr().err


STUDY = """
name = "small"
seeds = [1]
settings = { model = { path = "here" } }
arms = { ddpo_is = {} }
rewards = { jpeg_compressibility = {} }
"""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("nosuch.toml", "the study nosuch.toml cannot be read: No such file or directory"),
        ("{study} --cell rwr", "--cell 'rwr': the study small has no such cell"),
        ("{study} --again", "ddpo_is/jpeg_compressibility/1 has no row"),
        ("{study} --monitor judge", "--monitor 'judge' is not of the form NAME=URL"),
        ("{study}", "the reward service jpeg_compressibility at http://127.0.0.1:9 cannot be"),
    ],
)
def test_compare_mistakes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    options: str,
    message: str,
) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    arguments = options.replace("{study}", str(tmp_path / "study.toml")).split()
    arguments += ["--reward", REWARD, "--runs", str(tmp_path / "runs")]
    assert ddpo(monkeypatch, "compare", *arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1


def test_train_sample_evaluate_and_report(
    service: "ServiceProcess",
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    micro_recipe: Path,
) -> None:
    options = ["--recipe", str(micro_recipe), "--reward", f"jpeg={service.url}"]
    assert ddpo(monkeypatch, "train", *options, "--name", "mine") == 0
    said = capsys.readouterr().out
    run = micro_recipe.parent / "runs" / "mine"
    assert "sizes: samples_per_epoch 4, sampling_batches_per_epoch 2" in said
    assert "epoch 1/1: reward -0." in said
    assert f"report: {run / 'report.html'}" in said
    (run / "report.html").unlink()
    assert ddpo(monkeypatch, "report", str(run)) == 0
    assert (run / "report.html").exists()

    options = ["--prompts", "everyday_objects", "--samples", "2", "--seed", "4", "--name", "things"]
    options += ["--checkpoint", "1", "--reward", f"jpeg={service.url}"]
    assert ddpo(monkeypatch, "evaluate", str(run), *options) == 0
    said = capsys.readouterr().out
    assert "everyday_objects  jpeg (kB, maximize)  epoch-00001  2" in said
    assert said.endswith(f"pictures and scores: {run / 'evaluations' / 'things'}\n")
    assert ddpo(monkeypatch, "evaluate", str(run), *options) == 1
    assert "things is there already; replace it with --force" in capsys.readouterr().err
    assert ddpo(monkeypatch, "evaluate", str(run), *options, "--force") == 0

    # Twice the same prompt and seed: once from the base model, once from the run.
    golden = Path(__file__).parent.parent / "golden" / "micro_sd"
    pictures = []
    for name, source in (("base", ["--model", str(golden), "--steps", "3", "--guidance", "5"]),
                         ("trained", ["--run", str(run)])):  # fmt: skip
        out = micro_recipe.parent / f"{name}.png"
        prompts = ["--prompt", "a cat", "--prompt", "a dog", "--count", "2", "--out", str(out)]
        assert ddpo(monkeypatch, "sample", *source, *prompts) == 0
        with Image.open(out) as image:
            pictures.append(np.asarray(image).copy())
    assert pictures[0].shape == pictures[1].shape == (32, 32, 3)
    assert np.any(pictures[0] != pictures[1])
