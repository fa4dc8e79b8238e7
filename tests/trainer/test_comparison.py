"""`ddpo evaluate` on a real run: what is written, what it agrees with, and what stops it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from trainer.comparison import Comparison, compare
from trainer.comparison_results import Results
from trainer.config import Config
from trainer.gallery import Evaluation
from trainer.loop import train
from trainer.stops import Outage, RunStopped

if TYPE_CHECKING:
    from tests.conftest import ServiceProcess

MICRO = Path(__file__).parent.parent / "golden" / "micro_sd"
NOWHERE = "http://127.0.0.1:9"
Asked = Callable[..., Comparison]

# What it gives is told by the metadata, and some prompts do more than ask for a score.
MOODY = """
import os, signal
from reward_services import ItemError

class Moody:
    name, units, direction, max_batch_size = "moody", "dogs", "minimize", 64

    def score(self, items):
        return [self.one(item) for item in items]

    def one(self, item):
        if item.prompt == "interrupt":
            os.kill(int(os.environ["TRAINER"]), signal.SIGINT)
        if item.prompt == "die":
            os._exit(1)
        if item.prompt == "refuse":
            return ItemError("no such thing", "refused")
        return item.metadata.get("n", 0) + float(item.image.mean()) / 255
"""


@pytest.fixture(scope="module")
def trained(service: "ServiceProcess", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs, evaluated after each, with a checkpoint of both."""
    values: dict[str, dict[str, Any]] = {
        "run": {"dir": str(tmp_path_factory.mktemp("trained")), "name": "mine", "threads": 1},
        "model": {"path": str(MICRO), "train": "lora"},
        "sampling": {"steps": 3, "batch_size": 2, "samples_per_epoch": 4},
        "training": {
            "epochs": 2,
            "batch_size": 4,
            "micro_batch_size": 6,
            "learning_rate": 0.05,
            "clip_range": 1e-3,
        },
        "evaluation": {"samples": 5, "every": 1},
        "tracking": {"tensorboard": False},
        "rewards": {"jpeg": {"urls": [service.url]}},
    }
    return train(Config.model_validate(values))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run for one test."""
    return Path(shutil.copytree(trained, tmp_path / "mine"))


@pytest.fixture
def asked(run: Path, service: "ServiceProcess") -> Asked:
    """A comparison by the JPEG reward on the animals, unless it says otherwise."""

    def build(**other: Any) -> Comparison:
        usual: dict[str, Any] = {
            "run": run,
            "rewards": {"jpeg": service.url},
            "prompts": ["animals"],
        }
        return Comparison(**(usual | other))

    return build


@pytest.fixture(scope="module")
def moody(start_service: Callable[..., "ServiceProcess"]) -> str:
    """URL of a reward that looks at metadata, and presses Ctrl-C here for some prompts."""
    return start_service("moody:Moody", MOODY, TRAINER=str(os.getpid())).url


def evaluated(run: Path, epoch: int) -> Evaluation:
    """What the run itself found on its evaluation seeds."""
    scores = run / "evaluation" / f"epoch-{epoch:05d}" / "scores.json"
    return Evaluation.model_validate_json(scores.read_bytes())


def written(run: Path) -> list[str]:
    """Everything below `evaluations/`, hidden things too."""
    return sorted(os.listdir(run / "evaluations")) if (run / "evaluations").exists() else []


def lines(path: Path, *entries: dict[str, Any]) -> str:
    path.write_text("\n".join(map(json.dumps, entries)))
    return str(path)


def test_it_finds_what_the_run_found_itself(asked: Asked, run: Path) -> None:
    folder, results = compare(asked(epochs=[2, 1, 2]))
    assert folder == run / "evaluations" / "animals"
    assert (results.run, results.samples, results.seed) == ("mine", 5, 1_000_003)
    by_model = results.prompt_sets["animals"].rewards["jpeg"]
    assert list(by_model) == ["base", "epoch-00001", "epoch-00002"]
    for epoch, judged in enumerate(by_model.values()):
        own = evaluated(run, epoch)
        assert results.prompt_sets["animals"].prompts == own.prompts
        said = own.rewards["jpeg"]
        assert (judged.scores, judged.mean, judged.ci95) == (said.scores, said.mean, said.ci95)
    for model, epoch in (("base", 0), ("epoch-00002", 2)):
        for place in range(5):
            mine = folder / "animals" / model / f"{place:03d}.png"
            own_picture = run / "evaluation" / f"epoch-{epoch:05d}" / mine.name
            assert mine.read_bytes() == own_picture.read_bytes()
    # Training did change them, or none of this could fail.
    assert evaluated(run, 0).rewards != evaluated(run, 2).rewards


def test_the_newest_checkpoint_is_the_default(asked: Asked) -> None:
    _, results = compare(asked())
    assert list(results.prompt_sets["animals"].rewards["jpeg"]) == ["base", "epoch-00002"]


def test_seen_against_unseen_by_several_rewards(
    asked: Asked, service: "ServiceProcess", moody: str, tmp_path: Path
) -> None:
    known = lines(
        tmp_path / "rare things.jsonl",
        {"prompt": "an owl", "metadata": {"n": 100}},
        {"prompt": "a crow", "metadata": {"n": 300}},
    )
    folder, results = compare(
        asked(
            rewards={"jpeg": service.url, "told": moody},
            prompts=["unseen_animals", known],
            samples=3,
            seed=7,
        )
    )
    assert folder.name == "unseen_animals-rare_things"
    assert {path.name for path in folder.iterdir()} == {
        "results.json",
        "unseen_animals",
        "unseen_animals.png",
        "rare_things",
        "rare_things.png",
    }
    assert Results.model_validate_json((folder / "results.json").read_bytes()) == results
    assert results.identities["told"].units == "dogs"
    assert results.prompt_sets["rare_things"].source == known
    assert results.prompt_sets["rare_things"].prompts == ["an owl", "a crow", "an owl"]
    assert results.prompt_sets["unseen_animals"].prompts[0] == "an elephant"
    for judged in results.prompt_sets["rare_things"].rewards["told"].values():
        assert [round(score or 0, -2) for score in judged.scores] == [100, 300, 100]


def test_the_same_seed_draws_the_same_and_another_does_not(asked: Asked) -> None:
    scores = [
        compare(asked(name=name, seed=seed, samples=4))[1]
        .prompt_sets["animals"]
        .rewards["jpeg"]["base"]
        .scores
        for name, seed in (("a", 7), ("b", 7), ("c", 8))
    ]
    assert scores[0] == scores[1] != scores[2]


def test_the_grid_shows_the_models_from_left_to_right(asked: Asked) -> None:
    folder, _ = compare(asked(epochs=[1, 2], samples=2))
    with Image.open(folder / "animals.png") as image:
        grid = np.asarray(image)
    for place, model in enumerate(("base", "epoch-00001", "epoch-00002")):
        with Image.open(folder / "animals" / model / "000.png") as image:
            picture = np.asarray(image.resize((128, 128), Image.Resampling.LANCZOS))
        left = 24 + 130 * place
        assert np.array_equal(grid[24 : 24 + 128, left : left + 128], picture)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"run": Path("nowhere")}, "there is no run in nowhere"),
        ({"epochs": [9]}, r"no checkpoint after epoch 9, but after 1, 2 \(checkpoints\.keep"),
        ({"prompts": ["animls"]}, r"--prompts 'animls' is neither a prompt set"),
        ({"prompts": ["animals", "animals"]}, "two prompt sets are called animals: give each once"),
        ({"name": "../elsewhere"}, r"--name '\.\./elsewhere': use letters"),
        ({"rewards": {"jpeg": "localhost:8001"}}, "--reward jpeg=localhost:8001: String should"),
        ({"rewards": {"jpeg": NOWHERE}}, f"service jpeg at {NOWHERE} cannot be reached"),
        ({"rewards": {"jpeg": f"{NOWHERE},{NOWHERE}"}}, r"--reward jpeg=.*a URL is given twice"),
    ],
)
def test_a_mistake_is_told_before_anything_is_drawn(
    asked: Asked, run: Path, other: dict[str, Any], message: str
) -> None:
    with pytest.raises(RunStopped, match=message) as refused:
        compare(asked(**other))
    assert "\n" not in str(refused.value)
    assert written(run) == []


def test_a_run_without_a_checkpoint(asked: Asked, run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(RunStopped, match=r"the run in .* has no checkpoint yet"):
        compare(asked())


def test_a_key_that_the_run_knows_of_is_needed_here_too(asked: Asked, run: Path) -> None:
    config = run / "config.toml"
    config.write_text(config.read_text().replace("urls =", 'api_key_env = "JPEG_KEY"\nurls ='))
    with pytest.raises(RunStopped, match=r"rewards\.jpeg\.api_key_env names JPEG_KEY, which is"):
        compare(asked())


def test_an_evaluation_is_replaced_only_when_asked(asked: Asked, run: Path) -> None:
    compare(asked(samples=3))
    with pytest.raises(RunStopped, match=r"animals is there already; replace it with --force"):
        compare(asked(samples=2))
    results = run / "evaluations" / "animals" / "results.json"
    assert json.loads(results.read_bytes())["samples"] == 3
    compare(asked(samples=2, replace=True))
    assert json.loads(results.read_bytes())["samples"] == 2
    assert not (results.parent / "animals" / "base" / "002.png").exists()
    assert written(run) == ["animals"]


def test_pictures_that_nobody_scores_end_it(asked: Asked, run: Path, moody: str) -> None:
    prompts = lines(run / "bad.jsonl", {"prompt": "refuse"})
    with pytest.raises(
        RunStopped, match=r"only 0 of the 4 .*refused: no such thing.*raise --samples"
    ):
        compare(asked(rewards={"moody": moody}, prompts=["animals", prompts], samples=4))
    assert written(run) == []


def test_ctrl_c_leaves_nothing_and_keeps_what_was_there(
    asked: Asked, run: Path, moody: str
) -> None:
    compare(asked(name="mine"))
    before = (run / "evaluations" / "mine" / "results.json").read_bytes()
    prompts = lines(run / "slow.jsonl", {"prompt": "a cat"}, {"prompt": "interrupt"})
    again = asked(rewards={"moody": moody}, prompts=["animals", prompts], name="mine", replace=True)
    with pytest.raises(KeyboardInterrupt):
        compare(again)
    assert written(run) == ["mine"]
    assert (run / "evaluations" / "mine" / "results.json").read_bytes() == before


def test_a_service_that_dies_is_waited_for_as_the_run_would(
    asked: Asked,
    run: Path,
    start_service: Callable[..., "ServiceProcess"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DDPO_SCORING__MAX_OUTAGE_S", "0.5")
    dying = start_service("moody:Moody", MOODY)
    prompts = lines(run / "deadly.jsonl", {"prompt": "a cat"}, {"prompt": "die"})
    with pytest.raises(Outage, match=r"moody has been away .*max_outage_s = 0\.5") as outage:
        compare(asked(rewards={"moody": dying.url}, prompts=[prompts]))
    # There is nothing that `--resume` could continue, so nobody is told to.
    assert not hasattr(outage.value, "__notes__")
    assert written(run) == []
