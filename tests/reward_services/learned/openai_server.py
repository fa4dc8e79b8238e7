"""An OpenAI-compatible server of our own, as its own process, that serves a LLaVA folder.

    python openai_server.py FOLDER PORT

`POST /trouble` with a list of statuses makes the next requests answer with them; the number of
requests at work at the same time is counted and told by `GET /seen`.
"""

import asyncio
import base64
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request

from reward_services.models.llava import LlavaModel
from reward_services.models.vision_language import Inquiry, VisionLanguageOptions
from shared.images import decode_image

KEY = "a-key"
HEAD = "data:image/png;base64,"


def create(folder: str) -> FastAPI:
    model = LlavaModel(VisionLanguageOptions(model=folder, max_answer_tokens=8))
    app = FastAPI()
    trouble: list[int] = []
    seen = {"requests": 0, "at_work": 0, "most": 0}
    turn = asyncio.Lock()

    def check_key(request: Request) -> None:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            raise HTTPException(401, "wrong key")

    @app.post("/trouble")
    async def make_trouble(statuses: list[int]) -> None:
        trouble[:] = statuses
        seen.update(requests=0, most=0)

    @app.get("/seen")
    async def tell() -> dict[str, int]:
        return seen

    @app.get("/v1/models")
    async def list_models(request: Request) -> dict[str, Any]:
        check_key(request)
        return {"object": "list", "data": [{"id": "small-llava", "object": "model"}]}

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> dict[str, Any]:
        check_key(request)
        body = await request.json()
        seen["requests"] += 1
        seen["at_work"] += 1
        seen["most"] = max(seen["most"], seen["at_work"])
        try:
            if trouble:
                raise HTTPException(trouble.pop(0), "trouble", {"Retry-After": "0"})
            if body["model"] != "small-llava" or body["temperature"] != 0:
                raise HTTPException(400, "other model or temperature")
            (message,) = body["messages"]
            picture, text = message["content"]
            png = base64.b64decode(picture["image_url"]["url"].removeprefix(HEAD), validate=True)
            image = decode_image(png, max_pixels=10**7, formats=("PNG",))
            async with turn:
                inquiry = Inquiry(image, (text["text"],))
                (answers,) = await asyncio.to_thread(model.answer, [inquiry])
        finally:
            seen["at_work"] -= 1
        if not isinstance(answers, list):
            raise HTTPException(422, answers.message)
        choice = {"index": 0, "message": {"role": "assistant", "content": answers[0]}}
        return {"object": "chat.completion", "model": body["model"], "choices": [choice]}

    return app


if __name__ == "__main__":
    uvicorn.run(create(sys.argv[1]), port=int(sys.argv[2]), log_level="warning")
