"""Weights from a folder, a package or a hub, and the hash that tells them apart."""

import fnmatch
import hashlib
import importlib.util
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from reward_services.options import SetupError

PACKAGE = "package:"
# In the order in which transformers prefers them.
_WEIGHTS = (".safetensors", ".bin")
# What else decides what a model computes.
_MEANING = (
    "config.json",
    "generation_config.json",
    "*processor_config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "*.model",
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 22


def find_model(name: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """The folder of a model.

    Args:
        name: a folder; `package:PACKAGE/FOLDER`, a folder within an installed package; or an id
            on the hub, which is fetched once and from then on taken from the cache.
        revision: branch, tag or commit on the hub.
        weights: whether its weights are needed, or only configuration and vocabulary.

    Raises:
        SetupError: there is no such model, or it cannot be had from here.
    """
    folder = _package_folder(name) if name.startswith(PACKAGE) else Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise SetupError(f"{name} is no model: the folder has no config.json")
        return folder
    if name.startswith((".", "/", "~", PACKAGE)) or name.count("/") > 1:
        raise SetupError(f"there is no folder {name}")
    return _cached(name, revision, weights) or _fetched(name, revision, weights)


def digest(*parts: str | Path) -> str:
    """A short hash of texts, files and model folders, the same on every machine.

    Of a folder the weights, the configuration and the vocabulary count, by name and content.
    """
    whole = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            whole.update(f"text {len(part)} {part}".encode())
            continue
        files = _files_of(part) if part.is_dir() else [part]
        with ThreadPoolExecutor(4) as pool:
            for file, content in zip(files, pool.map(sha256_of, files), strict=True):
                whole.update(f"file {file.name if part.is_dir() else ''} {content}".encode())
    return whole.hexdigest()[:12]


def meaning(folder: Path) -> str:
    """A hash like `digest` of the configuration and vocabulary of a model alone."""
    files = sorted({file for pattern in _MEANING for file in folder.glob(pattern)})
    return digest(*(part for file in files for part in (file.name, file)))


def sha256_of(file: Path) -> str:
    """SHA-256 of a file; large files of the hub's cache bear it as their name."""
    stored = file.resolve()
    if stored.parent.name == "blobs" and _SHA256.fullmatch(stored.name):
        return stored.name
    sha = hashlib.sha256()
    with file.open("rb") as data:
        while chunk := data.read(_CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


def _package_folder(name: str) -> Path:
    package, _, inside = name.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SetupError(f"{name}: the package {package} is not installed")
    return Path(spec.submodule_search_locations[0]) / inside


def _files_of(folder: Path) -> list[Path]:
    weights = next((kind for kind in _WEIGHTS if any(folder.glob(f"*{kind}"))), "")
    patterns = (f"*{weights}", *_MEANING) if weights else _MEANING
    return sorted({file for pattern in patterns for file in folder.glob(pattern)})


def _cached(name: str, revision: str | None, weights: bool) -> Path | None:
    """The folder in the cache if all that is needed is there; no connection is made."""
    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as error:
        # One that lacks files which are not needed here is fine.
        if (partial := getattr(error, "snapshot_path", None)) is None:
            return None
        folder = Path(partial)
    except HFValidationError as error:
        raise SetupError(f"{name} is neither a folder nor an id on the hub: {error}") from None
    return folder if _is_whole(folder, weights) else None


def _is_whole(folder: Path, weights: bool) -> bool:
    if not (folder / "config.json").is_file():
        return False
    if not weights:
        return (folder / "tokenizer_config.json").is_file()
    for kind in _WEIGHTS:
        present = {file.name for file in folder.glob(f"*{kind}")}
        indexes = [index.read_text() for index in folder.glob(f"*{kind}.index.json")]
        shards = {name for text in indexes for name in re.findall(rf'"([^"]+\{kind})"', text)}
        if present and not shards - present:
            return True
    return False


def _fetched(name: str, revision: str | None, weights: bool) -> Path:
    def fetch() -> str:
        stored = HfApi().list_repo_files(name, revision=revision)
        at_root = [file for file in stored if "/" not in file]
        kind = next((k for k in _WEIGHTS if fnmatch.filter(at_root, f"*{k}")), _WEIGHTS[0])
        patterns = [f"*{kind}", f"*{kind}.index.json"] if weights else []
        patterns += _MEANING
        wanted = [file for pattern in patterns for file in fnmatch.filter(at_root, pattern)]
        return snapshot_download(name, revision=revision, allow_patterns=wanted)

    return _download(name, fetch)


def _download(name: str, fetch: Callable[[], str]) -> Path:
    reason: str
    try:
        return Path(fetch())
    except GatedRepoError:
        reason = "its owner must grant access: ask on its page and set HF_TOKEN"
    except RepositoryNotFoundError:
        reason = "the hub has no such model (or it is private: set HF_TOKEN)"
    except Exception as error:  # whatever a connection can fail with
        if constants.HF_HUB_OFFLINE:
            reason = f"HF_HUB_OFFLINE is set and it is not in the cache {constants.HF_HUB_CACHE}"
        elif isinstance(error, LocalEntryNotFoundError):
            reason = f"{constants.ENDPOINT} cannot be reached, and it is not in the cache"
        elif isinstance(error, (RevisionNotFoundError, EntryNotFoundError)):
            reason = "the hub has no such revision or file of it"
        else:
            lines = str(error).strip().splitlines() or [""]
            reason = f"asking {constants.ENDPOINT} failed ({type(error).__name__}: {lines[0]})"
    raise SetupError(
        f"cannot get the weights {name}: {reason}; name a path that holds them, or set HF_HOME to "
        "a cache filled elsewhere"
    )


def load(loader: Any, folder: Path, **arguments: Any) -> Any:
    """`loader.from_pretrained` on a folder, never on a name, and never code that comes with it.

    Raises:
        SetupError: the folder does not hold what the class needs.
    """
    # Its progress bars and reports are no log lines; what matters of them is checked here.
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    try:
        return loader.from_pretrained(
            os.fspath(folder), local_files_only=True, trust_remote_code=False, **arguments
        )
    except Exception as error:  # whatever a broken folder makes of the readers
        reason = " ".join(str(error).split())
        raise SetupError(f"{folder} does not load as {loader.__name__}: {reason[:300]}") from None


def load_model(loader: Any, folder: Path, may_miss: tuple[str, ...] = (), **arguments: Any) -> Any:
    """A model with all of its weights; transformers would fill missing ones with random numbers.

    Args:
        loader: a model class.
        folder: see `find_model`.
        may_miss: beginnings of the names of weights that are not used.
        arguments: of `from_pretrained`.

    Raises:
        SetupError: weights are missing or have another shape.
    """
    model, found = load(loader, folder, output_loading_info=True, **arguments)
    missing = [name for name in found["missing_keys"] if not name.startswith(may_miss)]
    wrong = [*missing, *(each[0] for each in found["mismatched_keys"])]
    if wrong:
        raise SetupError(
            f"{folder} lacks {len(wrong)} weights of {loader.__name__}, such as {sorted(wrong)[0]}"
        )
    return model


def find_file(name: str) -> Path:
    """A file: a path, or `OWNER/NAME:FILE` on the hub.

    Raises:
        SetupError: there is no such file, or it cannot be had from here.
    """
    if (path := Path(name).expanduser()).is_file():
        return path
    repository, colon, file = name.partition(":")
    if not colon or not file or repository.count("/") != 1:
        raise SetupError(f"there is no file {name}")
    try:
        return Path(hf_hub_download(repository, file, local_files_only=True))
    except LocalEntryNotFoundError:
        return _download(name, lambda: hf_hub_download(repository, file))
