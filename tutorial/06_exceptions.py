import json

from anel import Application, HTTPException, RouteNotFoundException


class KittyError(Exception):
    pass


def cat(request):
    raise KittyError("meow")


def unhandled(request):
    return request.Response(text=f"{1 / 0}\n")


def busy(request):
    raise HTTPException(503, "come back later\n", headers={"Retry-After": "5"})


def total(request):
    return request.Response(text=f"{sum(request.json)}\n")


def answer_kitty(request, exception):
    return request.Response(text=f"the cat says {exception}\n")


def answer_not_found(request, exception):
    return request.Response(text="nothing here\n", code=404)


def answer_not_json(request, exception):
    return request.Response(text=f"no JSON at {exception.pos}\n", code=400)


app = Application()
for handler in (cat, unhandled, busy, total):
    app.router.add_route(f"/{handler.__name__}", handler)
app.add_error_handler(KittyError, answer_kitty)
app.add_error_handler(RouteNotFoundException, answer_not_found)
app.add_error_handler(json.JSONDecodeError, answer_not_json)
app.run(port=8080)
