"""One batch through a scorer: an exception costs only the item that causes it."""

import logging
from collections.abc import Sequence

from pydantic import ValidationError

from reward_services.scorer import ItemError, Scored, ScoreItem, Scorer, run_scorer
from shared.schema import ItemFault, ItemResult

logger = logging.getLogger(__name__)


def score_batch(scorer: Scorer, items: Sequence[ScoreItem]) -> list[ItemResult]:
    """One result per item, in order; never raises an `Exception`.

    When the scorer raises, or breaks its contract, the batch is halved until the guilty items
    stand alone. What was raised goes to the log; the caller learns its type.
    """
    if not items:
        return []
    try:
        return [_result(outcome) for outcome in run_scorer(scorer, items)]
    except Exception as error:
        if len(items) == 1:
            logger.exception("%s failed on an item", scorer.name)
            return [_failure(scorer, error)]
        logger.warning(
            "%s failed on %d items (%s): halving", scorer.name, len(items), type(error).__name__
        )
    middle = len(items) // 2
    return score_batch(scorer, items[:middle]) + score_batch(scorer, items[middle:])


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
