"""What must not be in an image: build tools, secrets, caches, another user's power.

    python -m tests.image_audit IMAGE…

The image itself is asked, by a program of the standard library that runs in a container of it with
no network; and its layers are, as what one of them deletes is still in the one before.
"""

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

BUILD_TOOLS = ("pip", "pip3", "uv", "poetry", "conda", "npm", "node", "gcc", "g++", "cc", "c++")
MORE_TOOLS = ("clang", "make", "cmake", "git", "curl", "wget", "cargo")
OURS = PurePosixPath("opt/app")
MAY_BE_SECRET = {".git", ".env", ".ci", ".venv", "node_modules", ".npmrc", ".netrc", ".pypirc"}
NO_PART = {"runs", "tests", "secrets", ".cache"}
CACHES = ("root/.cache/", "root/.npm/", "tmp/", "var/lib/apt/lists/", "var/cache/apt/archives/")
SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
# Runs in the image: which programs of a list it has, whether pip can be run, and who asks.
PROBE = """
import importlib.util, json, os, shutil, sys
names = sys.argv[1:]
writable = [p for p in sys.path if p and os.path.isdir(p) and os.access(p, os.W_OK)]
print(json.dumps({
    "tools": [name for name in names if shutil.which(name)],
    "pip": any(importlib.util.find_spec(name) for name in ("pip", "ensurepip")),
    "uid": os.getuid(),
    "writable": writable,
}))
"""


def audit(image: str) -> list[str]:
    """One line per fault of an image."""
    return [*_of_its_configuration(image), *_of_a_container(image), *_of_its_layers(image)]


def _of_its_configuration(image: str) -> Iterator[str]:
    (known,) = json.loads(_docker("image", "inspect", image))
    config = known["Config"]
    if config["User"] in ("", "root", "0"):
        yield "it runs as root"
    labels = config["Labels"] or {}
    for name in ("title", "description", "licenses", "revision"):
        if f"org.opencontainers.image.{name}" not in labels:
            yield f"the label {name} is missing"
    for variable in config["Env"]:
        name, _, value = variable.partition("=")
        # The official Python image names the key that its sources were signed with.
        suspicious = name != "GPG_KEY" and any(word in name.upper() for word in SECRET_WORDS)
        if value and suspicious:
            yield f"the variable {name} may be a secret"


def _of_a_container(image: str) -> Iterator[str]:
    told = json.loads(
        _docker(
            *("run", "--rm", "--network", "none", "--cap-drop", "ALL"),
            *("--entrypoint", "python", image, "-c", PROBE, *BUILD_TOOLS, *MORE_TOOLS),
        )
    )
    if told["tools"]:
        yield f"it has {', '.join(told['tools'])}"
    if told["pip"]:
        yield "python -m pip works in it"
    if told["uid"] == 0:
        yield "it runs as root"
    if told["writable"]:
        yield f"its user could change code in {', '.join(told['writable'])}"


def _of_its_layers(image: str) -> Iterator[str]:
    for name in _files(image):
        path = PurePosixPath(name)
        if name.startswith(CACHES):
            yield f"a cache is left in it: {name}"
        elif path.is_relative_to(OURS) and (MAY_BE_SECRET | NO_PART) & set(path.parts):
            yield f"a file that is no part of the product: {name}"
        elif path.name in MAY_BE_SECRET:
            yield f"a file that may hold secrets: {name}"


def _files(image: str) -> Iterator[str]:
    """Every file of the layers that the image has on top of what it was built from."""
    (known,) = json.loads(_docker("image", "inspect", image))
    base = _base_layers(known["RootFS"]["Layers"])
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "image.tar"
        _docker("save", "--output", str(saved), image)
        with tarfile.open(saved) as archive:
            manifest = archive.extractfile("manifest.json")
            assert manifest is not None
            (described,) = json.load(manifest)
            for layer in described["Layers"][base:]:
                stream = archive.extractfile(layer)
                assert stream is not None
                with tarfile.open(fileobj=stream) as content:
                    yield from (file.name for file in content if file.isfile())


def _base_layers(layers: list[str]) -> int:
    """How many layers are those of the Python image; what is in them was not put there by us."""
    (known,) = json.loads(_docker("image", "inspect", "python:3.11-slim"))
    base = known["RootFS"]["Layers"]
    return len(base) if layers[: len(base)] == base else 0


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def main() -> None:
    """Audit images; exit code 1 when one has a fault."""
    parser = argparse.ArgumentParser(description="Look for what must not be in an image.")
    parser.add_argument("image", nargs="+")
    faults = 0
    for image in parser.parse_args().image:
        found = audit(image)
        faults += len(found)
        print(f"{image}: {'nothing that should not be there' if not found else ''}")
        print(*(f"  {fault}" for fault in found[:20]), sep="\n", end="\n" if found else "")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
