"""One batch through a scorer: an exception costs only the item that causes it."""

import logging
from collections.abc import Mapping, Sequence

import structlog
from pydantic import ValidationError

from reward_services.scorer import ItemError, Scored, ScoreItem, Scorer, run_scorer
from shared.schema import ItemFault, ItemResult

logger = logging.getLogger(__name__)


class BatchHung(Exception):
    """A batch did not come back, and its thread cannot be ended: the process has to."""


def score_batch(
    scorer: Scorer,
    items: Sequence[ScoreItem],
    origins: Sequence[Mapping[str, object]] | None = None,
) -> list[ItemResult]:
    """One result per item, in order; never raises an `Exception`.

    When the scorer raises, or breaks its contract, the batch is halved until the guilty items
    stand alone. What was raised goes to the log; the caller learns its type.

    Args:
        scorer: what scores.
        items: one batch.
        origins: what to log of an item that fails, such as its job; one entry per item.
    """
    if not items:
        return []
    try:
        return [_result(outcome) for outcome in run_scorer(scorer, items)]
    except Exception as error:
        if len(items) == 1:
            with structlog.contextvars.bound_contextvars(**(origins or [{}])[0]):
                logger.exception("%s failed on an item", scorer.name)
            return [_failure(scorer, error)]
        logger.warning(
            "%s failed on %d items (%s): halving", scorer.name, len(items), type(error).__name__
        )
    middle = len(items) // 2
    halves = (slice(None, middle), slice(middle, None))
    scored = (score_batch(scorer, items[half], origins and origins[half]) for half in halves)
    return [result for results in scored for result in results]


def _result(outcome: Scored | ItemError) -> ItemResult:
    if isinstance(outcome, Scored):
        return ItemResult(score=outcome.score, details=dict(outcome.details))
    return ItemResult(
        error=ItemFault(code=outcome.code, message=outcome.message, retryable=outcome.retryable)
    )


def _failure(scorer: Scorer, error: Exception) -> ItemResult:
    what = "details that are not JSON" if isinstance(error, ValidationError) else "an error"
    message = f"{scorer.name} failed on this picture with {what} ({type(error).__name__})"
    return ItemResult(error=ItemFault(code="scorer_failed", message=message, retryable=False))
