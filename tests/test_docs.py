"""What the docs name exists, and what exists is documented."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import reward_services.cli
import trainer.cli
from examples.brightness import Brightness
from reward_services.api import ROUTES
from reward_services.contract import check_scorer
from reward_services.metrics import Metrics
from reward_services.scorer import ScorerDescription
from reward_services.settings import PREFIX, ServiceSettings
from scripts.hyperparameters import FILE, advice
from trainer.config import Config
from trainer.recipe_files import recipe_names
from trainer.tracking import METRICS

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
PROGRAMS = {"ddpo": trainer.cli.app, "reward-services": reward_services.cli.app}
# Options of other programs that the docs show in their commands.
FOREIGN_OPTIONS = {
    *("--strict", "--check", "--help", "--appendonly", "--maxmemory-policy"),
    *("--build", "--build-arg", "--scale", "--profile"),
    *("--namespace", "--from-literal"),
    *("--nproc-per-node", "--max-restarts", "--shutdown-timeout"),
    *("--cpu", "--multi", "--num"),  # cut at the underscore
}


def read(*pages: Path) -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def found(pattern: str, text: str) -> set[str]:
    """What a pattern finds in the docs; finding nothing would make a test that cannot fail."""
    names = set(re.findall(pattern, text))
    assert names, f"nothing in the docs matches {pattern}"
    return names


def commands(program: str) -> dict[str, set[str]]:
    """Command → its options."""
    group = get_command(PROGRAMS[program])
    assert isinstance(group, TyperGroup)
    return {name: options(command) for name, command in group.commands.items()}


def options(command: Any) -> set[str]:
    """Of a command, or of all commands of a group."""
    inner = command.commands.values() if isinstance(command, TyperGroup) else []
    own = {opt for each in command.params for opt in [*each.opts, *each.secondary_opts]}
    return own.union(*map(options, inner))


def test_the_generated_tables_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.generate_docs", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_make_targets() -> None:
    targets = found(r"(?m)^([a-z-]+):.*##", read(ROOT / "Makefile"))
    phony = re.search(r"(?m)^\.PHONY: (.+)$", read(ROOT / "Makefile"))
    assert phony is not None
    assert set(phony[1].split()) == targets
    named = found(r"(?:`|^|\s)make ([a-z-]+)\b", read(ROOT / "README.md", ROOT / "CONTRIBUTING.md"))
    assert named <= targets
    assert targets - {"help"} <= named


@pytest.mark.parametrize("program", PROGRAMS)
def test_commands(program: str) -> None:
    existing = set(commands(program))
    assert existing
    assert found(rf"(?:`|^|\s){program} ([a-z]+)\b", read(*PAGES)) == existing


def test_every_option_in_the_docs_exists() -> None:
    existing = {opt for program in PROGRAMS for opts in commands(program).values() for opt in opts}
    named = found(r"(?<![\w-])--[a-z][a-z-]+", read(*PAGES))
    assert named - FOREIGN_OPTIONS <= existing


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_of_a_command_line_belongs_to_its_command(program: str) -> None:
    """`ddpo train … --port 1` names an option that exists, but not there."""
    lines = found(rf"(?m)^{program} [a-z]+.*$", read(*PAGES).replace("\\\n", " "))
    for line in lines:
        command, options = line.split()[1], re.findall(r"(?<![\w-])--[a-z-]+", line)
        assert set(options) <= commands(program)[command], line


def test_trainer_settings() -> None:
    """The generated table has them all; here, those that the prose names."""
    page = read(ROOT / "docs" / "training.md")
    documented = found(r"(?m)^\| `([a-z_]+\.[A-Za-z_.]+)` \|", page[page.index("\n## Settings") :])
    assert len(documented) > 30
    sections = "|".join(Config.model_fields)
    named = found(rf"(?:`|--set |\s)((?:{sections})\.[a-z_.]+)[`=\s]", read(*PAGES))
    assert {name for name in named if not name.endswith(".py")} <= documented


def test_every_setting_is_a_hyperparameter() -> None:
    """By a way of its own: from the settings of a configuration, not from the generator."""
    page = read(ROOT / "docs" / "hyperparameters.md")
    documented = found(r"(?m)^\| `([a-z_]+\.[A-Za-z_.]+)` \|", page)
    services = {"rewards": {"mine": "http://a"}, "monitors": {"judge": "http://b"}}
    flat = Config.model_validate({"model": {"path": "x"}, **services}).flat()
    own = {key.replace(".mine.", ".NAME.").replace(".judge.", ".NAME.") for key in flat}
    assert documented == own
    rows = [line for line in page.splitlines() if line.startswith("| `") and line.count("|") == 7]
    assert len(rows) == len(own)
    assert all(len(line.split("|")[6].strip()) > 10 for line in rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('["ema.decay"]', '["ema.decoy"]'), "says nothing of ema.decay"),
        (lambda text: text + '["ema.speed"]\nwhen = "never"\n', "tells of ema.speed, which is no"),
    ],
)
def test_advice_cannot_go_stale(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    settings = set(tomllib.loads(read(FILE)))
    changed = tmp_path / "hyperparameters.toml"
    changed.write_text(change(read(FILE)))
    with pytest.raises(SystemExit, match=message):
        advice(settings, changed)


def test_environment_variables() -> None:
    named = found(r"\bREWARD_(?!OPTIONS__)[A-Z_]+", read(*PAGES))
    existing = {f"{PREFIX}{name.upper()}" for name in ServiceSettings.model_fields}
    assert named == existing


def test_prometheus_series() -> None:
    collected = Metrics("docs").registry.collect()
    existing = {f"{m.name}_total" if m.type == "counter" else m.name for m in collected}
    page = read(ROOT / "docs" / "http-api.md")
    assert found(r"\breward_(?!services)[a-z_]+", page) == existing


def test_trainer_metrics() -> None:
    page = read(ROOT / "docs" / "training.md")
    documented = found(r"(?m)^\| `([^`]+)` \|", page[page.index("\n## Metrics") :])
    assert documented == set(METRICS)


def test_recipes() -> None:
    named = found(r"--recipe (\w+)", read(*PAGES)) | found(r"recipes/(\w+)\.toml", read(*PAGES))
    assert named <= set(recipe_names())
    readme = read(ROOT / "README.md")
    assert all(name in readme for name in recipe_names())


def test_routes() -> None:
    listed = found(r"`(?:GET|POST|DELETE) (/[\w./{}]*)`", read(ROOT / "docs" / "http-api.md"))
    assert listed == set(ROUTES)


def test_files_and_folders() -> None:
    """A path in the docs that begins in one of our folders must lead somewhere."""
    ours = "trainer|reward_services|shared|emoji_world|docs|tests|scripts|examples|benchmarks"
    named = found(rf"`((?:{ours})/[\w./-]*)`", read(*PAGES))
    assert not [path for path in named if not (ROOT / path).exists()]


def test_links_between_pages() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", read(page)):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("README.md", "brightness"),
        ("docs/write-a-reward.md", "brightness"),
        ("docs/write-a-reward.md", "sharpness"),
    ],
)
def test_the_rewards_in_the_docs_are_the_examples(page: str, name: str) -> None:
    """The examples are run by tests/test_examples.py."""
    example = read(ROOT / "examples" / f"{name}.py")
    assert f"```python\n{example}```" in read(ROOT / page)


def test_what_a_reward_says_about_itself() -> None:
    page = read(ROOT / "docs" / "write-a-reward.md")
    table = page[page.index("\n## What a reward says") : page.index("\n## One that explains")]
    documented = found(r"(?m)^\| `(\w+)` \|", table)
    assert documented == {field.name for field in fields(ScorerDescription)}


def test_the_output_of_check_in_the_docs() -> None:
    shown = found(r"(?m)^ok    ([\w -]+):", read(ROOT / "docs" / "write-a-reward.md"))
    assert shown == {finding.name for finding in check_scorer(Brightness)}
