from anel import Application, Router


def anything(request):
    return request.Response(text=f"{request.method} {request.path}\n")


def love(request):
    return request.Response(text="GET only\n")


def change(request):
    return request.Response(text="POST or DELETE\n")


def params(request):
    return request.Response(text=f"{request.match_dict}\n")


def user(request, id):
    return request.Response(text=f"user {id}, behind user {id - 1}\n")


app = Application()
app.router.add_route("/any", anything)
app.router.add_route("/love", love, "GET")
app.router.add_route("/methods", change, methods=["POST", "DELETE"])
app.router.add_route("/params/{p1}/{p2}", params)
app.router.add_route("/users/{id:int}", user)
files = Router(prefix="/files")


@files.get("/{path:path}")
def file(request, path):
    return request.Response(text=f"{path} of {request.url_for('user', id=7)}\n")


app.include(files)
app.run(port=8080)
