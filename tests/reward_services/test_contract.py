"""The contract kit finds what it promises to find."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from reward_services import ItemError, Scored, ScoreItem, Scorer
from reward_services.contract import Finding, check_scorer
from reward_services.loading import load_scorer

Score = Callable[[Sequence[ScoreItem]], Any]
CHECKS = {
    "description",
    "length and order",
    "batch-mates",
    "determinism",
    "two instances",
    "unusual pictures",
    "unusual prompts",
    "range",
    "details",
    "pictures untouched",
    "latency",
    "close",
}


class Made:
    """A scorer with any behaviour."""

    name = "made"
    version = "1"
    max_batch_size = 8
    range = (0.0, 255.0)

    def __init__(self, score: Score) -> None:
        self._score = score

    def score(self, items: Sequence[ScoreItem]) -> Any:
        return self._score(items)


def means(items: Sequence[ScoreItem]) -> list[float]:
    return [float(item.image.mean()) for item in items]


def failed(make: Callable[[], Scorer], tolerance: float = 0.0) -> set[str]:
    findings = list(check_scorer(make, tolerance))
    assert {finding.name for finding in findings} == CHECKS
    assert all(finding.message and "\n" not in finding.message for finding in findings)
    return {finding.name for finding in findings if not finding.passed}


@pytest.mark.parametrize("name", ["jpeg_compressibility", "jpeg_incompressibility"])
def test_the_rewards_that_come_along_pass(name: str) -> None:
    assert failed(lambda: load_scorer(name)) == set()


def test_a_good_scorer_passes() -> None:
    assert failed(lambda: Made(means)) == set()


def normalised(items: Sequence[ScoreItem]) -> list[float]:
    scores = np.array(means(items))
    return [float(score) for score in scores / max(scores.max(), 1.0)]


def turning() -> Score:
    state = np.random.default_rng(0)
    return lambda items: [mean + state.uniform(0, 1e-6) for mean in means(items)]


def strict(items: Sequence[ScoreItem]) -> list[float]:
    if items[0].image.shape[0] < 8:
        raise ValueError("too small")
    return means(items)


def dropping(item: ScoreItem) -> float:
    return float(item.image.mean()) / len(item.prompt)


def writing(items: Sequence[ScoreItem]) -> list[float]:
    scores = means(items)
    for item in items:
        item.image[0, 0, 0] ^= 1
    return scores


FAULTS: dict[str, tuple[Score, set[str]]] = {
    "sorted scores": (lambda items: sorted(means(items)), {"length and order", "batch-mates"}),
    "depends on batch-mates": (normalised, {"batch-mates"}),
    "not deterministic": (
        turning(),
        {"length and order", "batch-mates", "determinism", "two instances"},
    ),
    "raises on an empty prompt": (
        lambda items: [dropping(item) for item in items],
        {"unusual prompts"},
    ),
    "raises on small pictures": (strict, {"unusual pictures"}),
    "out of its range": (lambda items: [-1 - mean for mean in means(items)], {"range"}),
    "details are not JSON": (
        lambda items: [Scored(mean, {"x": float("nan")}) for mean in means(items)],
        {"details"},
    ),
    "details whose keys are numbers": (
        lambda items: [Scored(mean, {1: "x"}) for mean in means(items)],  # type: ignore[dict-item]
        {"details"},
    ),
    "writes into its input": (
        writing,
        {"length and order", "batch-mates", "determinism", "two instances", "pictures untouched"},
    ),
    "refuses ordinary pictures": (
        lambda items: [ItemError("no") for _ in items],
        {"length and order", "batch-mates", "determinism", "two instances", "range"},
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(name: str) -> None:
    score, expected = FAULTS[name]
    assert failed(lambda: Made(score)) == expected


def test_a_missing_score_fails_all_that_needs_scores() -> None:
    assert failed(lambda: Made(lambda items: means(items)[1:])) == CHECKS - {"description", "close"}


def test_a_tolerance_forgives_rounding() -> None:
    assert failed(lambda: Made(turning()), tolerance=1e-5) == set()


def test_two_instances_must_agree_on_their_version() -> None:
    versions = iter("123456")

    def make() -> Scorer:
        scorer = Made(means)
        scorer.version = next(versions)
        return scorer

    assert failed(make) == {"description"}


def test_weights_that_every_worker_draws_anew() -> None:
    weights = iter(np.random.default_rng(0).uniform(size=2))

    def make() -> Scorer:
        weight = float(next(weights))
        return Made(lambda items: [mean * weight for mean in means(items)])

    assert failed(make) == {"two instances"}


def test_a_scorer_is_closed_last() -> None:
    class Closing(Made):
        def close(self) -> None:
            raise RuntimeError("it\nhangs")

    *rest, last = check_scorer(lambda: Closing(means))
    assert all(finding.passed for finding in rest)
    assert last == Finding("close", False, "it raised RuntimeError: it hangs")


def test_findings_come_one_by_one() -> None:
    first = next(iter(check_scorer(lambda: Made(means))))
    assert first == Finding("description", True, "made, version 1, score, maximize")
