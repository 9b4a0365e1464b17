from litestar import Litestar, Request, Router, WebSocket, get, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.response import Stream


@get("/items/{item:int}", media_type="text/plain")
async def item(request: Request) -> str:
    return f"item {request.path_params['item']}"


@get("/stream/{name:str}", media_type="text/plain")
async def stream() -> Stream:
    async def chunks():
        for number in range(3):
            yield f"chunk {number}\n"

    return Stream(chunks(), media_type="text/plain")


@get("/fail/{name:str}")
async def fail() -> str:
    raise ValueError("on purpose")


@websocket("/ws/{room:str}")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(f"{socket.path_params['room']}: {await socket.receive_text()}")
    except WebSocketDisconnect:
        pass


handlers = [item, stream, fail, echo]
app = Litestar([*handlers, Router("/sub/{tenant:str}", route_handlers=handlers)])
