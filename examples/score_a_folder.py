"""Score every picture of a folder with a running reward service, best first.

python examples/score_a_folder.py http://127.0.0.1:8001 pictures/
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from shared.client import SyncRewardClient


def main() -> None:
    """Send all pictures in one request and print one line for each."""
    url, folder = sys.argv[1:]
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix in {".png", ".jpg"})
    images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    with SyncRewardClient(url) as client:
        response = client.score(images, [path.stem for path in paths])
    scored = [
        (result.score, path.name)
        for path, result in zip(paths, response.results, strict=True)
        if result.score is not None
    ]
    for score, name in sorted(scored, reverse=response.direction == "maximize"):
        print(f"{score:.3f} {response.units}  {name}")
    for path, result in zip(paths, response.results, strict=True):
        if result.error is not None:
            print(f"no score: {path.name}: {result.error.message}")


if __name__ == "__main__":
    main()
