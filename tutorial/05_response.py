from http.cookies import SimpleCookie

from anel import Application, redirect


def text(request):
    return request.Response("Olá\n", 418, encoding="iso-8859-1", headers={"X-Pot": "tea"})


def body(request):
    return request.Response(body=b"<svg/>\n", mime_type="image/svg+xml")


def json(request):
    return request.Response(json={"hello": "world"})


def cookies(request):
    response = request.Response(text="cookies\n", cookies=SimpleCookie({"flavour": "oat"}))
    response.set_cookie("word", "olá", max_age=60)
    return response


def old(request):
    return redirect("/text", code=301)


def plain(request):
    return {"plain": "values work"}, 201


app = Application()
for handler in (text, body, json, cookies, old, plain):
    app.router.add_route(f"/{handler.__name__}", handler)
app.run(port=8080)
