from json import JSONDecodeError

from japronto import Application


def lines(*pairs):
    return ''.join('{}: {}\n'.format(name, value) for name, value in pairs)


def basic(request):
    text = lines(
        ('method', request.method),
        ('path', request.path),
        ('version', request.version),
        ('query string', request.query_string),
        ('query', request.query))

    if request.headers:
        for name, value in request.headers.items():
            text += '{}={}\n'.format(name, value)

    return request.Response(text=text)


def body(request):
    text = lines(
        ('type', request.mime_type),
        ('encoding', request.encoding),
        ('body', request.body))

    if request.text is not None:
        text += 'text: ' + request.text + '\n'

    try:
        text += 'json: {}\n'.format(request.json)
    except JSONDecodeError:
        text += 'no json\n'

    return request.Response(text=text)


def misc(request):
    return request.Response(text=lines(
        ('match', request.match_dict),
        ('host', request.hostname),
        ('port', request.port),
        ('from', request.remote_addr),
        ('route', request.route.pattern),
        ('keep alive', request.keep_alive),
        ('agent', request.headers.get('User-Agent', 'nobody'))))


app = Application()
app.router.add_route('/basic', basic)
app.router.add_route('/body', body)
app.router.add_route('/misc', misc)
app.router.add_route('/misc/{name}', misc)
app.run()
