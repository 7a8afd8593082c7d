from anel import Application


def agent(request):
    return request.headers["User-Agent"].partition("/")[0]


def is_for(request, host):
    return request.hostname == host


def greet(request):
    request.add_done_callback(lambda request: print("answered", request.path, flush=True))
    words = f"{app.greeting}, {request.agent} at home: {request.is_for('localhost')}\n"
    return request.Response(text=words)


app = Application()
app.extend_request(agent, property=True)
app.extend_request(is_for)
app.router.add_route("/", greet)


@app.on_startup
async def begin():
    app.greeting = "hello"


@app.on_shutdown
def end():
    print("bye", flush=True)


@app.middleware
async def guard(request, call_next):
    if request.query.get("word") != "please":
        return "say please\n", 403
    return await call_next(request)


@app.middleware
def stamp(request):
    response = yield
    response.headers["X-Served-By"] = "anel"
    return response


app.run(port=8080)
