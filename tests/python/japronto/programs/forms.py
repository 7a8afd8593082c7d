from japronto import Application


def form(request):
    text = 'cookies: {}\nform: {}\n'.format(request.cookies, request.form)

    for name, file in (request.files or {}).items():
        text += 'file {}: {} {} {}\n'.format(name, file.name, file.type, file.body)

    return request.Response(text=text)


app = Application()
app.router.add_route('/', form)
app.run()
