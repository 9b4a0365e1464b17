"""`ASGI2Middleware`, under the name that uvicorn's users import."""

from obsserve.asgi.interfaces import ASGI2Application as ASGI2Middleware

__all__ = ["ASGI2Middleware"]
