"""MLflow's server app, whose bare address opens this home's experiments.

MLflow's start page is about language-model applications, and shows none of the runs. The server takes it by the entry point
`preference_zoo` of `mlflow.app`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

PLACE = "ZOO_UI_PLACE"  # environment: where the bare address leads, as in /experiments/1/runs
# What MLflow's pages keep in the browser: which of their two menus is shown, and whether their assistant, a panel over a
# quarter of the page for language models that nobody here has set up, has opened itself yet.
FIRST = {"mlflow.workflowType_v1": '"machine_learning"', "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true"}
UNCACHED = (b"if-none-match", b"if-modified-since")  # of a request: an older page of this address is never good enough
OF_BODY = (b"content-length", b"etag", b"last-modified", b"cache-control")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Served:
    """An ASGI app around MLflow's, which is imported when the server starts."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        from mlflow.server.fastapi_app import app as inner

        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await inner(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name not in UNCACHED]
        page = _Page(send)
        await inner({**scope, "headers": headers}, receive, page.take)


class _Page:
    """MLflow's page as it is sent on: whole, with a script that leaves its start page."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message = {}
        self._body = b""

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        body = with_landing(self._body, os.environ.get(PLACE, "/experiments"))
        headers = [(name, value) for name, value in self._start["headers"] if name.lower() not in OF_BODY]
        headers += [(b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def with_landing(page: bytes, place: str) -> bytes:
    """A page whose bare address leads to `place`: every address with a place of its own stays.

    Its menus are those of model training, until somebody chooses the other ones, and its assistant opens when it is asked to.
    """
    where = json.dumps(f"#{place}").replace("<", "\\u003c")
    script = f"""<script>
try {{
  for (const [key, value] of Object.entries({json.dumps(FIRST)})) localStorage.getItem(key) || localStorage.setItem(key, value)
}} catch (refused) {{}}
if (/^#?\\/?$/.test(location.hash)) location.replace({where})
</script>"""
    return page.replace(b"<head>", b"<head>" + script.encode(), 1)


app = Served()
