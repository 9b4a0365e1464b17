import os

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import include, path


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

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a test",
    MIDDLEWARE=[],
    LOGGING_CONFIG=None,
)
if os.environ.get("INSTRUMENTATION") == "django":  # where projects have it: behind the settings
    from opentelemetry.instrumentation.django import DjangoInstrumentor

    DjangoInstrumentor().instrument()
app = get_asgi_application()
assert django.VERSION >= (4, 2)
