from anel import Application

app = Application(reaper_settings={"idle_timeout": 90})
app.router.add_constant("/health", text="ok\n")


@app.get("/whoami")
def whoami(request):
    client = request.headers.get("X-Forwarded-For", request.remote_addr)
    return f"{client} asked {request.hostname}\n"


if __name__ == "__main__":
    app.run("127.0.0.1", 8080)
