"""The command line: `score` and `check` here, `serve` in test_service.py."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.images import encode_png

ROOT = Path(__file__).parent.parent.parent


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a user starts it."""
    command = [sys.executable, "-m", "reward_services", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    """A picture file."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16, 3), np.uint8)
    file = tmp_path / "cat.png"
    file.write_bytes(encode_png(pixels))
    return file


def jpeg_kb(file: Path) -> float:
    buffer = io.BytesIO()
    Image.open(file).save(buffer, "JPEG", quality=95)
    return len(buffer.getvalue()) / 1000


def test_scoring_files_offline(cat: Path) -> None:
    done = run("score", "jpeg_compressibility", str(cat), str(cat))
    assert done.returncode == 0, done.stderr
    row = {"file": str(cat), "score": -jpeg_kb(cat), "details": {"kB": jpeg_kb(cat)}}
    assert json.loads(done.stdout) == [row, row]


def test_a_bad_file_does_not_spoil_the_others(cat: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    names = ["cat.png", "text.png", "missing.png"]
    done = run("score", "jpeg_incompressibility", *names, "--json", cwd=tmp_path)
    assert done.returncode == 1
    rows = json.loads(done.stdout)
    assert [row["file"] for row in rows] == names
    assert rows[0]["score"] == jpeg_kb(cat)
    codes = [row["error"]["code"] for row in rows[1:]]
    assert codes == ["image_unreadable", "file_unreadable"]


def test_prompts_reach_the_scorer(tmp_path: Path, cat: Path) -> None:
    (tmp_path / "length.py").write_text(
        "class Length:\n"
        "    name, max_batch_size = 'length', 2\n"
        "    def score(self, items):\n"
        "        return [len(item.prompt) for item in items]\n"
    )
    files = [str(cat)] * 3
    prompts = ["--prompt", "a", "--prompt", "bb", "--prompt", "ccc"]
    done = run("score", "length:Length", *files, *prompts, cwd=tmp_path)
    assert [row["score"] for row in json.loads(done.stdout)] == [1, 2, 3]
    done = run("score", "length:Length", *files, "--prompt", "bb", cwd=tmp_path)
    assert [row["score"] for row in json.loads(done.stdout)] == [2, 2, 2]
    done = run("score", "length:Length", *files, *prompts[:4], cwd=tmp_path)
    assert done.returncode == 1
    assert "3 files but 2 prompts" in done.stderr


@pytest.mark.parametrize(
    ("command", "rest"), [("score", ["cat.png"]), ("check", []), ("serve", ["--port", "0"])]
)
def test_an_unknown_reward_is_one_line(command: str, rest: list[str]) -> None:
    done = run(command, "jpeg_compresibility", *rest)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "did you mean jpeg_compressibility?" in line


def test_check_passes_and_fails_by_exit_code(tmp_path: Path) -> None:
    good = run("check", "jpeg_compressibility")
    assert good.returncode == 0, good.stdout
    assert all(line.startswith("ok") for line in good.stdout.splitlines())
    (tmp_path / "short.py").write_text(
        "class Short:\n"
        "    name, max_batch_size = 'short', 2\n"
        "    def score(self, items):\n"
        "        return [1.0]\n"
    )
    bad = run("check", "short:Short", cwd=tmp_path)
    assert bad.returncode == 1
    assert "short returned 1 results for 8 items" in bad.stdout


def test_serving_without_the_extra_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None;"
        "sys.argv[1:] = ['serve', 'jpeg_compressibility'];"
        "from reward_services.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ddpo-reward-services[service]" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


OPTIONAL = """
from reward_services.options import RewardOptions

class Wishes(RewardOptions):
    factor: float

class Constant:
    name = "constant"
    max_batch_size = 2
    def __init__(self, options: Wishes):
        self.options = options
    def score(self, items):
        return [self.options.factor for _ in items]
"""


def test_options_of_a_reward(tmp_path: Path, cat: Path) -> None:
    (tmp_path / "wishes.py").write_text(OPTIONAL)
    command = ("score", "wishes:Constant", str(cat), "--json")
    done = run(*command, "--set", "factor=2.5", cwd=tmp_path)
    assert [row["score"] for row in json.loads(done.stdout)] == [2.5]
    for given, complaint in [
        ("factor", "--set factor: write it as NAME=VALUE"),
        ("faktor=1", "wishes:Constant: there is no option 'faktor' (did you mean factor?)"),
    ]:
        done = run(*command, "--set", "factor=1", "--set", given, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("reward-services: ")
        assert complaint in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_what_is_no_head_is_not_converted(tmp_path: Path) -> None:
    (tmp_path / "head.pth").write_bytes(b"no head")
    done = run("convert", "head.pth", "head.safetensors", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("reward-services: head.pth has 7 bytes, the published head ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "head.safetensors").exists()
