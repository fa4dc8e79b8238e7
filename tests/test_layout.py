"""The shape of the project: whose packages are imported, what ships, how large code may grow."""

import ast
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGES = ("trainer", "reward_services", "shared", "emoji_world")
DISTRIBUTION = "ddpo-reward-services"

FILE_LINES = 300
# A test file mirrors its module, so it is not split as easily.
FILE_LINES_AT_MOST = 500
FUNCTION_LINES = 80
# Code that is allowed to be longer than FILE_LINES.
LONG_FILES = {
    "reward_services/memory_queue.py": "one state under one lock; split, its rules would scatter",
}


def source_files(*folders: str) -> list[Path]:
    return sorted(
        file
        for folder in folders
        for file in (ROOT / folder).rglob("*.py")
        if "node_modules" not in file.parts
    )


def all_source_files() -> list[Path]:
    files = source_files(*PACKAGES, "tests", "benchmarks", "examples", "scripts")
    assert len(files) > 20, "the search for source files is broken"
    return files


@pytest.mark.parametrize("name", PACKAGES)
def test_the_packages_imported_are_ours(name: str) -> None:
    module = import_module(name)
    assert module.__file__ is not None
    assert Path(module.__file__).parent == ROOT / name


def test_the_packages_are_ours_from_any_folder_too(tmp_path: Path) -> None:
    """Distributions with the same import names exist; installed beside ours they would win here."""
    code = f"import {', '.join(PACKAGES)}; print(*[m.__file__ for m in ({', '.join(PACKAGES)})])"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert printed.split() == [str(ROOT / name / "__init__.py") for name in PACKAGES]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_a_wheel_holds_the_four_packages_and_nothing_else(wheel_names: list[str]) -> None:
    folders = {name.split("/")[0] for name in wheel_names}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == set(PACKAGES)
    assert not [name for name in wheel_names if "node_modules" in name or "__pycache__" in name]


def test_a_wheel_holds_all_code_recipes_pages_and_type_markers(wheel_names: list[str]) -> None:
    recipes = [*(ROOT / "trainer" / "recipes").glob("*.toml")]
    page = [*(ROOT / "reward_services" / "static").iterdir()]
    assert recipes
    assert page
    expected = [
        *source_files(*PACKAGES),
        *recipes,
        *page,
        *(ROOT / name / "py.typed" for name in PACKAGES),
    ]
    assert {str(file.relative_to(ROOT)) for file in expected} <= set(wheel_names)


def test_no_public_index_would_take_the_distribution() -> None:
    classifiers = metadata.metadata(DISTRIBUTION).get_all("Classifier") or []
    assert "Private :: Do Not Upload" in classifiers


def test_files_stay_short() -> None:
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines())
        for file in all_source_files()
    }
    assert not {name for name, lines in lengths.items() if lines > FILE_LINES_AT_MOST}
    long = {name for name, lines in lengths.items() if lines > FILE_LINES}
    unlisted = {name for name in long if not name.startswith("tests/")} - set(LONG_FILES)
    assert not unlisted, "split the file, or list it with its reason"


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_functions_stay_short() -> None:
    long = [
        f"{file.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines"
        for file in all_source_files()
        for node in functions(file)
        if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def test_constraints_pin_every_declared_dependency() -> None:
    pins = [Requirement(line) for line in constraint_lines()]
    assert all(str(pin.specifier).startswith("==") and "+" not in str(pin) for pin in pins)
    pinned = {canonicalize_name(pin.name) for pin in pins}
    declared = {canonicalize_name(need.name) for need in requirements()} - {DISTRIBUTION}
    assert len(declared) > 20
    assert not declared - pinned


def constraint_lines() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def requirements() -> list[Requirement]:
    return [Requirement(need) for need in metadata.requires(DISTRIBUTION) or []]


def declared_for(extras: set[str]) -> set[str]:
    """The distributions named for these extras, those without an extra included."""
    return {
        canonicalize_name(need.name)
        for need in requirements()
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras)
    }


def imported_names(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        ("shared", {""}),
        ("reward_services", {"", "service", "otel", "aesthetic", "llava", "quantized"}),
        ("trainer", {"", "trainer", "study"}),
        ("emoji_world", {"", "trainer", "emoji-world"}),
    ],
)
def test_every_import_is_a_declared_dependency(package: str, extras: set[str]) -> None:
    allowed = declared_for(extras)
    distributions = metadata.packages_distributions()
    undeclared = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in source_files(package)
        for name in imported_names(file)
        if name not in sys.stdlib_module_names
        and name not in PACKAGES
        and not allowed & {canonicalize_name(owner) for owner in distributions.get(name, [name])}
    }
    assert not undeclared


@pytest.mark.parametrize("module", ["trainer.cli", "reward_services.api", "shared.client"])
def test_light_modules_leave_torch_alone(module: str) -> None:
    code = (
        f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
