"""The LAION aesthetic predictor: an affine map of CLIP's picture features.

Schuhmann, "Improved Aesthetic Predictor" (2022), as used by Black et al. (2023), §5.1: the features
of `openai/clip-vit-large-patch14`, scaled to length 1, go through five linear layers without any
activation between them. The published head is `sac+logos+ava1-l14-linearMSE.pth`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reward_services.models import weights
from reward_services.models.clip import ClipEncoder
from reward_services.models.clip_pixels import refusal
from reward_services.models.model_options import ModelOptions
from reward_services.options import SetupError
from reward_services.scorer import ItemError, Scored, ScoreItem

PUBLISHED_HEAD = "trl-lib/ddpo-aesthetic-predictor:aesthetic-model.pth"
PUBLISHED_BYTES = 3_714_759
PUBLISHED_SHA256 = "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"
HEAD_IN_FOLDER = "aesthetic_head.safetensors"
# A pickle, even one that is only allowed to hold tensors, is not opened when it is larger.
_LARGEST_PTH = 64 * 1024 * 1024
_WIDTHS = (1024, 128, 64, 16, 1)
# Where the linear layers stand among the dropouts that a published head counts too.
_PLACES = (0, 2, 4, 6, 7)


class AestheticOptions(ModelOptions):
    """Options of `aesthetic`; `dtype=auto` is fp32."""

    model: str = "openai/clip-vit-large-patch14"
    """Folder, `package:NAME/FOLDER` or hub id of a CLIP model."""
    head: str = ""
    """File of the head, `.safetensors` or `.pth`, or `OWNER/NAME:FILE` on the hub. Unset: \
`aesthetic_head.safetensors` in the folder of the model, else the published head."""
    head_sha256: str = ""
    """SHA-256 the head must have. Unset: any for `.safetensors`, the published one for `.pth`."""


class AestheticHead(nn.Module):
    """Linear layers to 1024, 128, 64, 16 and 1 values, with the published names.

    There is no non-linearity, so the score is w·e + b. The dropouts between the layers do nothing
    outside training and are left out; the numbers in the names still count them.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        sizes = zip((features, *_WIDTHS), _WIDTHS, strict=False)
        layers = {str(at): nn.Linear(*size) for at, size in zip(_PLACES, sizes, strict=True)}
        self.layers = nn.ModuleDict(layers)

    def forward(self, features: Tensor) -> Tensor:
        """Scores [N] of unit vectors [N,D], both float32."""
        for layer in self.layers.values():
            features = layer(features)
        return features.squeeze(1)


class Aesthetic:
    """The aesthetic score of each picture; the published head gives about 1 to 10, 5 on average."""

    name = "aesthetic"
    units = "points"
    direction: Literal["maximize"] = "maximize"
    range = (None, None)
    max_batch_size = 64
    needs_prompt = False

    def __init__(self, options: AestheticOptions) -> None:
        path = _find_head(options)
        self._head = load_head(path, options.head_sha256)
        self._clip = ClipEncoder(options.model, options)
        width = self._head.layers["0"].in_features
        if width != self._clip.dimensions:
            raise SetupError(
                f"the head {path.name} takes {width} features and {options.model} gives "
                f"{self._clip.dimensions}: they do not belong together"
            )
        self.version = weights.digest(self.name, path, *self._clip.identity)
        if options.warm_up:
            self.score([ScoreItem(np.zeros((8, 8, 3), np.uint8))])

    def score(self, items: Sequence[ScoreItem]) -> list[Scored | ItemError]:
        """One score per item. A long, thin picture is refused."""
        outcomes: list[Scored | ItemError | None] = [refusal(item.image) for item in items]
        fine = [index for index, refused in enumerate(outcomes) if refused is None]
        vectors = self._clip.images([items[index].image for index in fine])
        for index, vector in zip(fine, vectors, strict=True):
            outcomes[index] = self._judge(vector)
        return [outcome for outcome in outcomes if outcome is not None]

    def close(self) -> None:
        """End the threads."""
        self._clip.close()

    def _judge(self, vector: Tensor | None) -> Scored | ItemError:
        if vector is None:
            return ItemError("the GPU has too little memory", "out_of_memory", retryable=True)
        with torch.inference_mode():
            # One by one, so that the others in the batch cannot matter; it is 1 MFLOP.
            return Scored(self._head(vector[None]).item())


def load_head(path: Path, sha256: str = "") -> AestheticHead:
    """The head in a `.safetensors` or `.pth` file.

    Raises:
        SetupError: another file than expected, or no head of this shape.
    """
    if path.suffix != ".safetensors" and not sha256:
        if (size := path.stat().st_size) != PUBLISHED_BYTES:
            raise SetupError(
                f"{path} has {size} bytes, the published head {PUBLISHED_BYTES}: fetch it again, "
                "or, if it is another head, name its head_sha256"
            )
        sha256 = PUBLISHED_SHA256
    if sha256 and (found := weights.sha256_of(path)) != sha256.lower():
        raise SetupError(f"{path} has the SHA-256 {found}, not {sha256}: fetch it again")
    tensors = _tensors(path)
    first = tensors.get("layers.0.weight")
    head = AestheticHead(first.shape[1] if first is not None and first.ndim == 2 else 1)
    try:
        head.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise SetupError(f"{path} is no aesthetic head: {reason[:300]}") from None
    return head.requires_grad_(False).eval()


def convert_head(source: Path, target: Path, sha256: str = "") -> None:
    """Write a head as safetensors, which can hold nothing but tensors.

    Raises:
        SetupError: see `load_head`; or `target` exists.
    """
    if target.exists():
        raise SetupError(f"{target} exists: name another file")
    head = load_head(source, sha256)
    save_file({name: tensor.contiguous() for name, tensor in head.state_dict().items()}, target)


def _find_head(options: AestheticOptions) -> Path:
    if options.head:
        return weights.find_file(options.head)
    beside = weights.find_model(options.model, options.revision) / HEAD_IN_FOLDER
    return beside if beside.is_file() else weights.find_file(PUBLISHED_HEAD)


def _tensors(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.stat().st_size > _LARGEST_PTH:
            raise SetupError(f"{path} is too large for a head")
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except SetupError:
        raise
    except Exception as error:  # whatever a broken file makes of the readers
        reason = " ".join(str(error).split())
        raise SetupError(f"{path} cannot be read: {reason[:200]}") from None
    if not isinstance(loaded, Mapping) or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise SetupError(f"{path} is no aesthetic head: it does not map names to tensors")
    return loaded
