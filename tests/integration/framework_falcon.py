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


app = falcon.asgi.App()
app.add_route("/items/{item:int}", Item())
app.add_route("/stream/{name}", Stream())
app.add_route("/fail/{name}", Fail())
app.add_route("/ws/{room}", Echo())
