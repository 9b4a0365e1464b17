"""Django's scope names no route; with ANNOUNCE=yes a middleware tells the server."""

import os

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import include, path


class AnnounceRoute:
    async_capable = sync_capable = True

    def __init__(self, get_response):
        self.get_response = get_response
        from asgiref.sync import markcoroutinefunction

        markcoroutinefunction(self)

    async def __call__(self, request):
        return await self.get_response(request)

    async def process_view(self, request, view, arguments, parameters):
        request.scope["extensions"]["obsserve"].set_route(f"/{request.resolver_match.route}")


async def item(request, item):
    return HttpResponse(f"item {item}", content_type="text/plain")


async def stream(request, name, tenant=None):
    async def chunks():
        for number in range(3):
            yield f"chunk {number}\n"

    return StreamingHttpResponse(chunks(), content_type="text/plain")


async def fail(request, name):
    raise ValueError("on purpose")


patterns = [path("items/<int:item>", item), path("stream/<name>", stream), path("fail/<name>", fail)]
urlpatterns = [*patterns, path("sub/<tenant>/", include([path("stream/<name>", stream)]))]

announces = os.environ.get("ANNOUNCE") == "yes"
settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a test",
    MIDDLEWARE=[f"{__name__}.AnnounceRoute"] if announces else [],
    LOGGING_CONFIG=None,
)
app = get_asgi_application()
assert django.VERSION >= (4, 2)
