"""A vision-language model behind an OpenAI-compatible server, such as vLLM or SGLang."""

import asyncio
import base64
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from reward_services.models.vision_language import Answers, Inquiry, VisionLanguageOptions
from reward_services.options import SetupError
from reward_services.scorer import ItemError
from shared.images import encode_png
from shared.retry import BackOff, parse_retry_after

_START_S: Final = 10.0
_CLOSE_S: Final = 5.0
_FIRST_SERVER_FAULT: Final = 500
# Answers below 500 that another try can cure.
_RETRIED: Final = frozenset({408, 409, 425, 429})


class OpenAiModel:
    """Asks `POST /chat/completions`: one request per question, at temperature 0.

    The server holds the weights, so the name it has for them stands for them in the version.

    Raises:
        SetupError: no address, no server there, or it does not serve the model.
    """

    def __init__(self, options: VisionLanguageOptions) -> None:
        if options.base_url is None:
            raise SetupError("backend=openai needs base_url, such as http://localhost:8000/v1")
        self._options = options
        key = options.api_key
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client = httpx.AsyncClient(
            base_url=str(options.base_url),
            headers=headers,
            limits=httpx.Limits(max_connections=options.concurrency),
            timeout=options.timeout_s,
        )
        self._slots = asyncio.Semaphore(options.concurrency)
        try:
            self._wait_for(self._check_model())
        except BaseException:
            self.close()
            raise
        self.identity: tuple[Path | str, ...] = (
            "openai",
            options.model,
            options.prompt_template,
            str(options.max_answer_tokens),
        )

    def answer(self, inquiries: Sequence[Inquiry]) -> list[Answers]:
        """Per picture one answer to each question; all questions at once, within `concurrency`."""
        answers: list[Answers] = self._wait_for(self._answer_all(inquiries))
        return answers

    def close(self) -> None:
        """Close the connections and end the thread."""
        self._wait_for(self._client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_S)
        self._loop.close()

    def _wait_for(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _check_model(self) -> None:
        url = self._options.base_url
        try:
            reply = await self._client.get("models", timeout=_START_S)
            served = [str(each["id"]) for each in reply.raise_for_status().json()["data"]]
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            hint = "; check api_key" if status in (401, 403) else ""
            raise SetupError(f"{url} answers {status} to GET models{hint}") from None
        except httpx.HTTPError as error:
            raise SetupError(f"no model server at {url}: {type(error).__name__}") from None
        except (ValueError, KeyError, TypeError):
            raise SetupError(f"{url} is no OpenAI-compatible server") from None
        if self._options.model not in served:
            raise SetupError(
                f"{url} does not serve {self._options.model}: set model to {' or '.join(served)}"
            )

    async def _answer_all(self, inquiries: Sequence[Inquiry]) -> list[Answers]:
        return await asyncio.gather(*(self._answer_one(inquiry) for inquiry in inquiries))

    async def _answer_one(self, inquiry: Inquiry) -> Answers:
        async with self._slots:
            png = await asyncio.to_thread(encode_png, inquiry.image, compress_level=1)
        url = "data:image/png;base64," + base64.b64encode(png).decode()
        replies = await asyncio.gather(*(self._ask(url, each) for each in inquiry.questions))
        texts = [reply for reply in replies if isinstance(reply, str)]
        faults = [reply for reply in replies if isinstance(reply, ItemError)]
        return faults[0] if faults else texts

    async def _ask(self, image_url: str, question: str) -> str | ItemError:
        # A question keeps its slot between its tries, so that a server in trouble gets less to do.
        async with self._slots:
            return await self._ask_until_answered(image_url, question)

    async def _ask_until_answered(self, image_url: str, question: str) -> str | ItemError:
        last = ""
        try:
            async with asyncio.timeout(self._options.timeout_s):
                back_off = BackOff()
                while True:
                    reply, last, retry_after = await self._try(image_url, question)
                    if reply is not None:
                        return reply
                    now = self._loop.time()
                    back_off.failed(now, now, retry_after)
                    await asyncio.sleep(back_off.ready_at - now)
        except TimeoutError:
            message = f"the model server gave no answer in {self._options.timeout_s:g} s"
            reason = f" ({last})" if last else ""
            return ItemError(message + reason, "model_unavailable", retryable=True)

    async def _try(
        self, image_url: str, question: str
    ) -> tuple[str | ItemError | None, str, float | None]:
        """An answer or None, the reason why there is none, and how long to wait by the server."""
        try:
            reply = await self._client.post(
                "chat/completions", json=self._body(image_url, question)
            )
        except httpx.HTTPError as error:
            return None, type(error).__name__, None
        status = reply.status_code
        if status >= _FIRST_SERVER_FAULT or status in _RETRIED:
            return (
                None,
                f"it answered {status}",
                parse_retry_after(reply.headers.get("Retry-After")),
            )
        if reply.is_error:
            text = " ".join(reply.text.split())[:300]
            return (
                ItemError(f"the model server answered {status}: {text}", "model_refused"),
                "",
                None,
            )
        return _content(reply), "", None

    def _body(self, image_url: str, question: str) -> dict[str, Any]:
        text = (self._options.prompt_template or "{question}").replace("{question}", question)
        content = [
            {"type": "image_url", "image_url": {"url": image_url}},
            {"type": "text", "text": text},
        ]
        return {
            "model": self._options.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self._options.max_answer_tokens,
            "seed": 0,
        }


def _content(reply: httpx.Response) -> str | ItemError:
    try:
        text = reply.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        text = None
    if isinstance(text, str):
        return text.strip()
    return ItemError("the model server's answer holds no text", "model_refused")
