import asyncio
import tempfile

from anel import Application, EventStream, FileResponse

uploads = tempfile.TemporaryDirectory()
app = Application()


@app.get("/squares")
def squares(request):
    return request.Response(stream=(f"{n * n}\n" for n in range(3)), mime_type="text/plain")


@app.get("/events")
def events(request):
    return EventStream(count())


async def count():
    for number in range(2):
        await asyncio.sleep(0.01)
        yield {"number": number}


@app.post("/upper")
async def upper(request):
    return request.Response(stream=(piece.upper() async for piece in request.stream()))


@app.put("/file")
async def upload(request):
    return {"bytes": await request.save(f"{uploads.name}/a.txt")}


@app.get("/file")
def download(request):
    return FileResponse(f"{uploads.name}/a.txt")


app.run(port=8080)
