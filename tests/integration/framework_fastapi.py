from fastapi import APIRouter, FastAPI, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse

router = APIRouter()


@router.get("/items/{item}", response_class=PlainTextResponse)
async def item(item: int):
    return f"item {item}"


@router.get("/stream/{name}")
async def stream(name: str):
    async def chunks():
        for number in range(3):
            yield f"chunk {number}\n"

    return StreamingResponse(chunks(), media_type="text/plain")


@router.get("/fail/{name}")
async def fail(name: str):
    raise ValueError("on purpose")


@router.websocket("/ws/{room}")
async def echo(websocket: WebSocket, room: str):
    await websocket.accept()
    async for message in websocket.iter_text():
        await websocket.send_text(f"{room}: {message}")


app, sub = FastAPI(), FastAPI()
sub.include_router(router)
app.include_router(router)
app.include_router(router, prefix="/v1")
app.mount("/sub/{tenant}", sub)
