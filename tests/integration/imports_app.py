"""Answers with what this process has imported."""

import json
import sys


async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = json.dumps(sorted(sys.modules)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
