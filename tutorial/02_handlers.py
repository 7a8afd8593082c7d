import asyncio

from anel import Application


def now(request):
    return request.Response(text="now\n")


async def soon(request):
    await asyncio.sleep(0.1)
    return request.Response(text="soon\n")


async def both(request):
    first, second = await asyncio.gather(wait(0.1, "first"), wait(0.1, "second"))
    return request.Response(text=f"{first} and {second}\n")


async def wait(seconds, word):
    await asyncio.sleep(seconds)
    return word


app = Application()
app.router.add_route("/now", now)
app.router.add_route("/soon", soon)
app.router.add_route("/both", both)
app.run(port=8080)
