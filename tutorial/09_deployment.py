from anel import Application

app = Application()
app.router.add_constant("/health", text="ok\n")


@app.get("/whoami")
def whoami(request):
    return f"{request.remote_addr} asked {request.hostname}\n"


if __name__ == "__main__":
    app.run("127.0.0.1", 8080)
