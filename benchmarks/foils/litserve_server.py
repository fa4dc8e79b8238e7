"""A foil: the same scorer behind LitServe.

The product's safetensors body comes as an uploaded file, the way without JSON that LitServe offers.

    python -m benchmarks.foils.litserve_server PORT
"""

import os
import sys
from typing import Any

import litserve
from fastapi import UploadFile

from reward_services.loading import load_scorer
from reward_services.scorer import Scored, ScoreItem, Scorer, run_scorer
from shared.wire import decode_batch


class RewardApi(litserve.LitAPI):  # type: ignore[misc]
    """Pictures in, scores out."""

    def setup(self, device: Any) -> None:
        del device
        self.scorer: Scorer = load_scorer(os.environ["FOIL_SCORER"])

    def decode_request(self, request: UploadFile) -> list[ScoreItem]:
        batch = decode_batch(request.file.read())
        return [ScoreItem(*pair) for pair in zip(batch.images, batch.prompts, strict=True)]

    def predict(self, x: list[ScoreItem]) -> list[float | None]:
        outcomes = run_scorer(self.scorer, x)
        return [one.score if isinstance(one, Scored) else None for one in outcomes]

    def encode_response(self, output: list[float | None]) -> dict[str, list[float | None]]:
        return {"scores": output}


def main() -> None:
    # Without `fast_queue`: ZeroMQ measured slower for bodies of this size.
    server = litserve.LitServer(RewardApi(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)


if __name__ == "__main__":
    main()
