"""The learned rewards: pictures per second by batch size, and through the service.

    python -m benchmarks.learned_rewards [--clip FOLDER] [--llava FOLDER] [--full-size]

Without `--full-size` the models of the emoji world, for a CPU. With it random weights in the shapes
of CLIP ViT-L/14 and LLaVA 1.5 7B (14 GB of disk and of GPU memory).
"""

import argparse
import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring.pictures import pictures
from benchmarks.measuring.processes import ROOT, reward_service
from benchmarks.measuring.rounds import Way, in_turns
from benchmarks.measuring.tables import print_throughput, verdict
from reward_services.models.llava import LlavaModel
from reward_services.models.vision_language import Inquiry, VisionLanguageOptions
from reward_services.scorer import Scored, ScoreItem
from reward_services.scorers.aesthetic import Aesthetic, AestheticOptions
from shared.client import RewardClient

QUESTIONS = ("Answer concisely: what is going on in this image?",)
GOAL_OF_SERVICE = 0.9
IN_PROCESS, SERVICE = "in process", "through the service"
Images = NDArray[np.uint8]


async def aesthetic_by_batch(clip: Path, images: Images, rounds: int, sizes: list[int]) -> None:
    items = [ScoreItem(image) for image in images]

    def way(size: int) -> Way:
        scorer = Aesthetic(AestheticOptions(model=str(clip), batch_size=size))

        async def call() -> None:
            scorer.score(items)

        return Way(f"passes of {size}", call)

    ways = [way(size) for size in sizes]
    print("aesthetic, in process:")
    print_throughput(await in_turns(ways, rounds), len(images), ways[0].name)


async def aesthetic_service(clip: Path, images: Images, rounds: int) -> None:
    scorer = Aesthetic(AestheticOptions(model=str(clip)))
    items = [ScoreItem(image) for image in images]

    def expected() -> list[float]:
        return [one.score for one in scorer.score(items) if isinstance(one, Scored)]

    with reward_service("aesthetic", options__model=clip) as server:
        async with RewardClient(server.url) as client:

            async def in_process() -> None:
                expected()

            async def through_the_service() -> None:
                response = await client.score(images, [""] * len(images))
                if not np.allclose(
                    [one.score or 0.0 for one in response.results], scores, atol=0.01
                ):
                    raise SystemExit("the service changed the scores")

            scores = expected()
            ways = [Way(IN_PROCESS, in_process), Way(SERVICE, through_the_service)]
            measured = await in_turns(ways, rounds)
    print("aesthetic, client and server on the same machine:")
    print_throughput(measured, len(images), IN_PROCESS)
    ratio = measured[IN_PROCESS].median / measured[SERVICE].median
    print(verdict("service to in process", ratio, GOAL_OF_SERVICE))


async def llava_by_batch(llava: Path, images: Images, rounds: int, sizes: list[int]) -> None:
    inquiries = [Inquiry(image, QUESTIONS) for image in images]

    def way(size: int) -> Way:
        options = VisionLanguageOptions(model=str(llava), batch_size=size, max_answer_tokens=16)
        model = LlavaModel(options)

        async def call() -> None:
            model.answer(inquiries)

        return Way("one by one" if size == 1 else f"batches of {size}", call)

    ways = [way(size) for size in sizes]
    print("LLaVA, 16 tokens at most, in process:")
    print_throughput(await in_turns(ways, rounds), len(images), ways[0].name)


@contextmanager
def folders(options: argparse.Namespace) -> Iterator[tuple[Path, Path]]:
    """Where the models are; of random ones, for as long as they are needed."""
    if not options.full_size:
        yield options.clip, options.llava
        return
    from benchmarks.measuring.random_models import save_clip, save_llava

    with TemporaryDirectory() as place:
        clip, llava = Path(place, "clip"), Path(place, "llava")
        save_clip(clip, min(24, options.layers))
        save_llava(llava, options.layers)
        yield clip, llava


async def measure(options: argparse.Namespace) -> None:
    images = pictures(options.items, options.side)
    print(
        f"{options.items} pictures of {options.side}×{options.side}, {options.rounds} rounds, "
        f"{os.cpu_count()} cores"
    )
    with folders(options) as (clip, llava):
        await aesthetic_by_batch(clip, images, options.rounds, [1, 4, 16, 64])
        await aesthetic_service(clip, images, options.rounds)
        await llava_by_batch(llava, images, options.rounds, [1, 8, 32])


def main() -> None:
    parser = argparse.ArgumentParser(description="The learned rewards.")
    models = ROOT / "emoji_world" / "models"
    parser.add_argument("--clip", type=Path, default=models / "clip")
    parser.add_argument("--llava", type=Path, default=models / "captioner")
    parser.add_argument("--full-size", action="store_true")
    parser.add_argument("--layers", type=int, default=32, help="of random models")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--items", type=int, default=64)
    options = parser.parse_args()
    if not options.full_size and not (options.clip.is_dir() and options.llava.is_dir()):
        print(f"no models in {options.clip} and {options.llava}: name others, or --full-size")
        return
    asyncio.run(measure(options))


if __name__ == "__main__":
    main()
