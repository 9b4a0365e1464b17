"""Falcon's scope names no route; with ANNOUNCE=yes a middleware tells the server."""

import os

import falcon.asgi


class Item:
    async def on_get(self, request, response, item):
        response.content_type = "text/plain"
        response.text = f"item {item}"


class Stream:
    async def on_get(self, request, response, name):
        async def chunks():
            for number in range(3):
                yield f"chunk {number}\n".encode()

        response.content_type = "text/plain"
        response.stream = chunks()


class Fail:
    async def on_get(self, request, response, name):
        raise ValueError("on purpose")


class Echo:
    async def on_websocket(self, request, socket, room):
        await socket.accept()
        try:
            while True:
                await socket.send_text(f"{room}: {await socket.receive_text()}")
        except falcon.WebSocketDisconnected:
            pass


class AnnounceRoute:
    async def process_resource(self, request, response, resource, params):
        request.scope["extensions"]["obsserve"].set_route(request.uri_template)

    async def process_resource_ws(self, request, socket, resource, params):
        request.scope["extensions"]["obsserve"].set_route(request.uri_template)


app = falcon.asgi.App(middleware=[AnnounceRoute()] if os.environ.get("ANNOUNCE") == "yes" else [])
app.add_route("/items/{item:int}", Item())
app.add_route("/stream/{name}", Stream())
app.add_route("/fail/{name}", Fail())
app.add_route("/ws/{room}", Echo())
