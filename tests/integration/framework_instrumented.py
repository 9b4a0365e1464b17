"""The application of another file, with what its team has put around it: FRAMEWORK and INSTRUMENTATION say which."""

import importlib
import os

instrumentation = os.environ["INSTRUMENTATION"]
if instrumentation == "fastapi":
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    FastAPIInstrumentor().instrument()
app = importlib.import_module(f"framework_{os.environ['FRAMEWORK']}").app
if instrumentation == "asgi":
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    app = OpenTelemetryMiddleware(app)
