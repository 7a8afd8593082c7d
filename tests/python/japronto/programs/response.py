import random
from http.cookies import SimpleCookie

from japronto.app import Application


def text(request):
    return request.Response(text='Hello world!')


def encoding(request):
    return request.Response(text='Jutro pójdę', encoding='iso-8859-2')


def mime(request):
    return request.Response(
        text='<svg xmlns="http://www.w3.org/2000/svg"><circle r="4"/></svg>',
        mime_type='image/svg+xml')


def body(request):
    return request.Response(body=b'\xde\xad\xbe\xef')


def json(request):
    return request.Response(json={'hello': 'world', 'numbers': [1, 2, 3]})


def code(request):
    return request.Response(
        code=random.choice([200, 201, 400, 404, 500]), text='Which one is it?')


def headers(request):
    return request.Response(
        text='You will be somewhere else soon.',
        headers={'X-Header': 'Value', 'Refresh': '5; url=https://example.com/'})


def cookies(request):
    cookies = SimpleCookie()
    cookies['hello'] = 'world'
    cookies['hello']['domain'] = 'localhost'
    cookies['hello']['path'] = '/'
    cookies['hello']['max-age'] = 3600
    cookies['city'] = 'São Paulo'

    return request.Response(text='cookies', cookies=cookies)


app = Application()
router = app.router
for handler in (text, encoding, mime, body, json, code, headers, cookies):
    router.add_route('/' + handler.__name__, handler)

app.run()
