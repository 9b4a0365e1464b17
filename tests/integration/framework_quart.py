from quart import Quart, websocket

app = Quart(__name__)


@app.get("/items/<int:item>")
async def item(item):
    return f"item {item}", {"content-type": "text/plain"}


@app.get("/stream/<name>")
async def stream(name):
    async def chunks():
        for number in range(3):
            yield f"chunk {number}\n".encode()

    return chunks(), {"content-type": "text/plain"}


@app.get("/fail/<name>")
async def fail(name):
    raise ValueError("on purpose")


@app.websocket("/ws/<room>")
async def echo(room):
    while True:
        await websocket.send(f"{room}: {await websocket.receive()}")
