"""Two real processes that exchange, and stop, as one run does; and one that does it all alone."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import free_port
from tests.trainer.several import Updates
from trainer.processes import ALONE, reason_of
from trainer.step_statistics import UpdateStats
from trainer.stops import ConfigError

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes found."""
    out = tmp_path_factory.mktemp("several")
    script = Path(__file__).parent / "several.py"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    port = ["--master_port", str(free_port())]
    done = subprocess.run(
        [*torchrun, *port, "-m", "tests.trainer.several", str(out)],
        cwd=script.parents[2],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def both(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone() -> tuple[Updates, dict[str, UpdateStats]]:
    """The same updates by one process."""
    updates = Updates(ALONE)
    return updates, {"ddpo": updates.ddpo(), "rwr": updates.rwr()}


def test_every_process_gets_what_all_have(both: list[dict[str, Any]]) -> None:
    first, second = (each["found"] for each in both)
    assert first["shares"] == [[0, 1], []]
    assert second["shares"] == [[2, 3, 4], [0]]
    for each in (first, second):
        assert each["gathered"] == [[10, 11], [12, 13], [14, 15]]
        assert each["nothing"] == []
        assert each["flags"] == [True, False, False]
        assert each["said"] == [{"rank": rank, "text": "a\nb"} for rank in (0, 1)]
        assert each["from_main"] == {"rank": 0}
        # The last has a gradient in neither, so AdamW is to leave it alone.
        assert each["gradients"] == [[3, 6], [1, 1], None]


def test_all_have_the_pictures_and_scores_that_one_has(both: list[dict[str, Any]]) -> None:
    for each in both:
        assert str(each["shared"].pop("scores")) == str([1 / 3, math.nan])
        assert each["shared"] == {
            "prompts": ["a cat", "é\nb"],
            "latents": [2, 3, 4, 8, 8],
            "log_probs": [[0.5, 0.5]] * 2,
            "divergence": [[1, 1]] * 2,
            "brightness": [200, 200],
            "valid": [[True, False]] * 2,
            "faults": {"ugly": 1},
            "example": "ugly: it is",
            "seconds": [1, 3],
        }


def test_two_processes_have_the_gradients_of_one(
    folder: Path, alone: tuple[Updates, dict[str, UpdateStats]]
) -> None:
    updates, _ = alone
    first, second = (load_file(folder / f"{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == updates.gradients.keys()
    for name, expected in updates.gradients.items():
        assert torch.equal(first[name], second[name]), "the weights would drift apart"
        # Later steps begin with weights that differ by rounding already.
        share = 1e-6 if name.endswith(".0") else 1e-4
        assert (first[name] - expected).norm() <= share * expected.norm(), name


def test_two_processes_have_the_statistics_of_one(
    both: list[dict[str, Any]], alone: tuple[Updates, dict[str, UpdateStats]]
) -> None:
    _, stats = alone
    for name, known in stats.items():
        for each in both:
            said = each["metrics"][name]
            for metric, value in known.metrics().items():
                assert said[metric] == pytest.approx(value, rel=1e-3, nan_ok=True), metric
    assert not math.isnan(both[0]["metrics"]["ddpo"]["kl_to_base"])


@pytest.mark.parametrize(
    ("case", "kind", "words"),
    [
        ("alarm", "ConfigError", "set it otherwise"),
        ("waiting", "Interrupted", "stopped by SIGTERM"),
        ("disk", "RunStopped", "no space left"),
        ("main", "RunStopped", "the file is damaged"),
    ],
)
def test_what_stops_one_stops_both(
    both: list[dict[str, Any]], case: str, kind: str, words: str
) -> None:
    assert [each["stops"][case] for each in both] == [[kind, words]] * 2


def test_a_mistake_keeps_its_traceback_where_it_was_made(both: list[dict[str, Any]]) -> None:
    first, second = (each["stops"]["mistake"] for each in both)
    assert first == ["RunStopped", "process 1 failed: ValueError: not a number"]
    assert second == ["ValueError", "not a number"]


def test_processes_that_are_not_alike_are_refused(both: list[dict[str, Any]]) -> None:
    for each in both:
        kind, words = each["stops"]["unlike"]
        assert kind == "ConfigError"
        assert "it is {'rank': 0} in process 0 and {'rank': 1} in process 1" in words


def test_what_is_lost_is_told_in_a_sentence() -> None:
    error = RuntimeError("[/w/pair.cc:553] Connection closed by peer [127.0.0.1]:6. This is so.")
    assert reason_of(error) == "Connection closed by peer [127.0.0.1]:6"


def test_alone_nothing_is_exchanged() -> None:
    rows = torch.ones(2)
    assert ALONE.is_main
    assert list(ALONE.share(3)) == [0, 1, 2]
    assert ALONE.gather(rows) is rows
    assert ALONE.gather_json("x") == ["x"]
    assert ALONE.from_main(lambda: "y") == "y"
    ALONE.check()
    ALONE.require_same("it", 1)
    with pytest.raises(ConfigError), ALONE.together():
        raise ConfigError("as it is")
