from anel import Application


def basic(request):
    text = f"{request.method} {request.path} HTTP/{request.version}\n"
    text += f"host: {request.hostname} port: {request.port}\n"
    text += f"query: {request.query_string} {request.query}\n"
    text += f"agent: {request.headers['user-agent']} cookies: {request.cookies}\n"
    return request.Response(text=text)


def body(request):
    text = f"type: {request.mime_type} charset: {request.encoding}\n"
    if request.mime_type == "application/json":
        text += f"bytes: {request.body}\njson: {request.json}\n"
    if request.form is not None:
        text += f"form: {request.form}\n"
    for name, file in (request.files or {}).items():
        text += f"{name}: {file.name}, {file.type}, {file.body}\n"
    return request.Response(text=text)


def misc(request):
    request.extra["seen"] = True
    text = f"from: {request.remote_addr} keep-alive: {request.keep_alive}\n"
    text += f"route: {request.route.pattern} extra: {request.extra}\n"
    return request.Response(text=text)


app = Application()
app.router.add_route("/basic", basic)
app.router.add_route("/body", body)
app.router.add_route("/misc", misc)
app.run(port=8080)
