from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute


async def item(request):
    return PlainTextResponse(f"item {request.path_params['item']}")


async def stream(request):
    async def chunks():
        for number in range(3):
            yield f"chunk {number}\n"

    return StreamingResponse(chunks(), media_type="text/plain")


async def fail(request):
    raise ValueError("on purpose")


async def echo(websocket):
    await websocket.accept()
    async for message in websocket.iter_text():
        await websocket.send_text(f"{websocket.path_params['room']}: {message}")


routes = [
    Route("/items/{item:int}", item),
    Route("/stream/{name}", stream),
    Route("/fail/{name}", fail),
    WebSocketRoute("/ws/{room}", echo),
]
app = Starlette(routes=[*routes, Mount("/sub/{tenant}", app=Starlette(routes=routes))])
