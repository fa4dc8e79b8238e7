"""A foil, UNSAFE, never to be served to anyone: Flask behind gunicorn, pickle both ways.

In the manner of published reward servers, with lossless pixels where they send JPEGs: a pickled
dictionary of arrays and prompts comes in, a pickled dictionary of scores goes out. Unpickling runs
whatever code its sender likes. Started by `benchmarks.field`, with FOIL_SCORER set.
"""

import os
import pickle

from flask import Flask, request

from reward_services.loading import load_scorer
from reward_services.scorer import Scored, ScoreItem, run_scorer


def create_app() -> Flask:
    """The application that gunicorn serves."""
    app = Flask(__name__)
    scorer = load_scorer(os.environ["FOIL_SCORER"])

    def health() -> str:
        return "ok"

    def score() -> bytes:
        data = pickle.loads(request.get_data())
        items = [ScoreItem(*pair) for pair in zip(data["images"], data["prompts"], strict=True)]
        outcomes = run_scorer(scorer, items)
        scores = [one.score if isinstance(one, Scored) else None for one in outcomes]
        return pickle.dumps({"scores": scores})

    app.add_url_rule("/health", view_func=health)
    app.add_url_rule("/", view_func=score, methods=["POST"])
    return app
