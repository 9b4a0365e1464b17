from blacksheep import Application, Content, Response, StreamedContent, WebSocket, WebSocketDisconnectError
from blacksheep.server.routing import Router

router = Router()
app = Application(router=router)


@router.get("/items/{int:item}")
async def item(item: int):
    return Response(200, content=Content(b"text/plain", f"item {item}".encode()))


@router.get("/stream/{name}")
async def stream(name: str):
    async def chunks():
        for number in range(3):
            yield f"chunk {number}\n".encode()

    return Response(200, content=StreamedContent(b"text/plain", chunks))


@router.get("/fail/{name}")
async def fail(name: str):
    raise ValueError("on purpose")


@router.ws("/ws/{room}")
async def echo(websocket: WebSocket, room: str):
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(f"{room}: {await websocket.receive_text()}")
    except WebSocketDisconnectError:
        pass
