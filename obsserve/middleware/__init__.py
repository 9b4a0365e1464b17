"""ASGI middleware under the names that uvicorn's users import; the server itself needs none of it."""
