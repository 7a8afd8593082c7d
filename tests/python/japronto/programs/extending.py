from japronto import Application


def extended_hello(request):
    if request.host_startswith('api.'):
        text = 'Hello ' + request.reversed_agent
    else:
        text = 'Hello stranger'

    return request.Response(text=text)


def reversed_agent(request):
    return request.headers['User-Agent'][::-1]


def host_startswith(request):
    def startswith(prefix):
        return request.headers['Host'].startswith(prefix)
    return startswith


def starts(request, prefix):
    return request.headers['Host'].startswith(prefix)


def with_method(request):
    return request.Response(text=str(request.starts('api.')))


app = Application()

app.extend_request(reversed_agent, property=True)
app.extend_request(host_startswith, property=True)
app.extend_request(starts)

app.router.add_route('/', extended_hello)
app.router.add_route('/method', with_method)
app.run()
