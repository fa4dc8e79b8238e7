"""The aesthetic reward: the published head's shape, names and numbers, in any company."""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from transformers import CLIPImageProcessorPil, CLIPModel

from reward_services.contract import check_scorer
from reward_services.options import SetupError
from reward_services.scorer import ItemError, Scored, ScoreItem
from reward_services.scorers import aesthetic
from reward_services.scorers.aesthetic import (
    Aesthetic,
    AestheticHead,
    AestheticOptions,
    convert_head,
    load_head,
)
from tests.reward_services.learned.conftest import noise

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "golden" / "aesthetic_mlp.json").read_text(encoding="utf-8")
)
PUBLISHED_HEAD = "AESTHETIC_HEAD"


def options(folder: Path, **changes: Any) -> AestheticOptions:
    return AestheticOptions.model_validate({"model": str(folder), "device": "cpu", **changes})


@pytest.fixture
def scorer(clip_folder: Path) -> Iterator[Aesthetic]:
    made = Aesthetic(options(clip_folder))
    yield made
    made.close()


def scores(scorer: Aesthetic, images: list[np.ndarray]) -> list[float]:
    outcomes = scorer.score([ScoreItem(image) for image in images])
    assert all(isinstance(outcome, Scored) for outcome in outcomes)
    return [outcome.score for outcome in outcomes if isinstance(outcome, Scored)]


def published_layers() -> nn.Sequential:
    """The layers as the published code builds them, dropouts included."""
    return nn.Sequential(
        nn.Linear(768, 1024),
        nn.Dropout(0.2),
        nn.Linear(1024, 128),
        nn.Dropout(0.2),
        nn.Linear(128, 64),
        nn.Dropout(0.1),
        nn.Linear(64, 16),
        nn.Linear(16, 1),
    )


@pytest.fixture
def head_file(tmp_path: Path) -> tuple[Path, nn.Sequential]:
    """A head of the published shape with random weights, stored as the published one is."""
    torch.manual_seed(1)
    layers = published_layers().eval()
    state = {f"layers.{name}": tensor for name, tensor in layers.state_dict().items()}
    torch.save(state, tmp_path / "head.pth")
    return tmp_path / "head.pth", layers


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def unit_vectors() -> torch.Tensor:
    """The embeddings of the golden file, by its formula."""
    i, k = np.arange(768, dtype=np.float64), np.array(GOLDEN["k"])[:, None]
    e = np.sin(0.37 * (i + 1) * (k + 1)) + 0.5 * np.cos(0.011 * (i + 1) ** 1.5 + k)
    e = (e / np.linalg.norm(e, axis=1, keepdims=True)).astype(np.float32)
    np.testing.assert_allclose(e[:, :4], GOLDEN["first4"], rtol=1e-6)
    return torch.from_numpy(e)


def test_the_published_shapes_and_names() -> None:
    shapes = {name: list(tensor.shape) for name, tensor in AestheticHead(768).state_dict().items()}
    assert shapes == GOLDEN["state_dict_shapes"]


def test_a_pth_of_the_published_shape(head_file: tuple[Path, nn.Sequential]) -> None:
    file, layers = head_file
    head = load_head(file, sha256(file).upper())
    with torch.no_grad():
        assert torch.equal(head(unit_vectors()), layers(unit_vectors()).squeeze(1))


def test_the_head_is_an_affine_map(head_file: tuple[Path, nn.Sequential]) -> None:
    head = load_head(head_file[0], sha256(head_file[0])).double()
    with torch.no_grad():
        constant = head(torch.zeros(1, 768, dtype=torch.float64))
        weights = head(torch.eye(768, dtype=torch.float64)) - constant
        e = unit_vectors().double()
        torch.testing.assert_close(head(e), e @ weights + constant, rtol=1e-9, atol=1e-12)


@pytest.mark.skipif(
    PUBLISHED_HEAD not in os.environ, reason=f"{PUBLISHED_HEAD} does not name the published head"
)
def test_golden() -> None:
    """The numbers of the published head, which does not come along."""
    head = load_head(Path(os.environ[PUBLISHED_HEAD]))
    with torch.no_grad():
        found = head(unit_vectors())
        constant = head(torch.zeros(1, 768))
        weights = head(torch.eye(768)) - constant
    np.testing.assert_allclose(found, GOLDEN["scores_f32"], atol=2e-5)
    np.testing.assert_allclose(constant, GOLDEN["bias"], atol=2e-5)
    assert weights.norm().item() == pytest.approx(GOLDEN["folded_weight_norm"], abs=1e-4)


def test_a_converted_head_is_the_same(
    head_file: tuple[Path, nn.Sequential], tmp_path: Path
) -> None:
    file, _ = head_file
    target = tmp_path / "head.safetensors"
    convert_head(file, target, sha256(file))
    with torch.no_grad():
        expected = load_head(file, sha256(file))(unit_vectors())
        assert torch.equal(load_head(target)(unit_vectors()), expected)
    with pytest.raises(SetupError, match="exists: name another file"):
        convert_head(file, target, sha256(file))


class Evil:
    """A pickle that creates a file where it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_a_head_that_is_code_is_not_run(tmp_path: Path) -> None:
    mark, file = tmp_path / "mark", tmp_path / "head.pth"
    torch.save({"layers.0.weight": Evil(mark)}, file)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Evil(mark)))
    for each in (file, tmp_path / "plain.pth"):
        with pytest.raises(SetupError, match="cannot be read") as caught:
            load_head(each, sha256(each))
        assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_another_file_than_the_published_one(
    head_file: tuple[Path, nn.Sequential], tmp_path: Path
) -> None:
    file, _ = head_file
    with pytest.raises(SetupError, match=f"has {file.stat().st_size} bytes, the published head"):
        load_head(file)
    with pytest.raises(SetupError, match="has the SHA-256"):
        load_head(file, "0" * 64)
    padded = tmp_path / "padded.pth"
    padded.write_bytes(bytes(aesthetic.PUBLISHED_BYTES))
    with pytest.raises(SetupError, match=f"not {aesthetic.PUBLISHED_SHA256}"):
        load_head(padded)


def test_what_is_no_head(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    torch.save({"layers.0.weight": torch.zeros(1024, 768)}, tmp_path / "part.pth")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for name in ("list.pth", "part.pth", "empty.safetensors"):
        file = tmp_path / name
        with pytest.raises(SetupError, match=name) as caught:
            load_head(file, sha256(file))
        assert "\n" not in str(caught.value)


def test_the_score_is_the_head_of_unit_clip_features(scorer: Aesthetic, clip_folder: Path) -> None:
    images = [*noise(3), *noise(1, 100, 37)]
    model = CLIPModel.from_pretrained(clip_folder, dtype=torch.float32).eval()
    processor = CLIPImageProcessorPil.from_pretrained(clip_folder)
    inputs = processor([Image.fromarray(image) for image in images], return_tensors="pt")
    with torch.no_grad():
        features = model.get_image_features(**inputs).pooler_output
        head = load_head(clip_folder / aesthetic.HEAD_IN_FOLDER)
        expected = head(functional.normalize(features, dim=-1)).tolist()
    assert len(set(expected)) == len(images)
    assert scores(scorer, images) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_same_bits_in_any_company(batch_size: int, clip_folder: Path) -> None:
    scorer = Aesthetic(options(clip_folder, batch_size=batch_size))
    images = noise(9)
    alone = [score for image in images for score in scores(scorer, [image])]
    for size in (2, 3, 4, 9):
        parts = [images[start : start + size] for start in range(0, 9, size)]
        assert [score for part in parts for score in scores(scorer, part)] == alone
    assert scores(scorer, images[::-1])[::-1] == alone
    scorer.close()


def test_a_long_thin_picture_is_refused_alone(scorer: Aesthetic) -> None:
    picture = noise(1)[0]
    first, thin, last = scorer.score(
        [ScoreItem(picture), ScoreItem(np.zeros((1, 500, 3), np.uint8)), ScoreItem(picture)]
    )
    assert isinstance(thin, ItemError)
    assert thin.code == "aspect_ratio"
    assert first == last == Scored(scores(scorer, [picture])[0])


def test_it_keeps_the_contract(clip_folder: Path) -> None:
    findings = list(check_scorer(lambda: Aesthetic(options(clip_folder))))
    assert [finding for finding in findings if not finding.passed] == []


def test_the_version_is_that_of_the_weights(clip_folder: Path, tmp_path: Path) -> None:
    def version(folder: Path, **changes: Any) -> str:
        scorer = Aesthetic(options(folder, warm_up=False, **changes))
        scorer.close()
        return scorer.version

    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy)
    before = version(clip_folder)
    assert version(copy) == version(copy, batch_size=4) == before
    assert version(copy, dtype="bf16") != before
    torch.manual_seed(5)
    layers = AestheticHead(64).state_dict()
    torch.save(layers, tmp_path / "other.pth")
    changes = {"head": str(tmp_path / "other.pth"), "head_sha256": sha256(tmp_path / "other.pth")}
    assert version(copy, **changes) != before


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_is_close(dtype: str, scorer: Aesthetic, clip_folder: Path) -> None:
    half = Aesthetic(options(clip_folder, dtype=dtype))
    images = noise(4)
    assert scores(half, images) == pytest.approx(scores(scorer, images), abs=0.02)
    half.close()


def test_a_head_for_another_clip(clip_folder: Path, head_file: tuple[Path, nn.Sequential]) -> None:
    file = head_file[0]
    with pytest.raises(SetupError, match=r"takes 768 features and .+ gives 64"):
        Aesthetic(options(clip_folder, head=str(file), head_sha256=sha256(file)))


def test_the_published_head_is_asked_for_where_there_is_none(
    clip_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(clip_folder, tmp_path / "clip")
    (tmp_path / "clip" / aesthetic.HEAD_IN_FOLDER).unlink()
    with pytest.raises(
        SetupError, match=r"trl-lib/ddpo-aesthetic-predictor:aesthetic-model\.pth: "
    ):
        Aesthetic(options(tmp_path / "clip"))


def test_a_compiled_model_scores_the_same(scorer: Aesthetic, clip_folder: Path) -> None:
    """The compiler itself is left out: it takes a C++ compiler and minutes."""
    with pytest.MonkeyPatch.context() as patch:
        compiled: list[dict[str, Any]] = []

        def compile_model(function: Any, **arguments: Any) -> Any:
            compiled.append(arguments)
            return function

        patch.setattr(torch, "compile", compile_model)
        other = Aesthetic(options(clip_folder, torch_compile=True))
    assert compiled == [{"dynamic": False}]
    assert scores(other, noise(3)) == scores(scorer, noise(3))
    other.close()
