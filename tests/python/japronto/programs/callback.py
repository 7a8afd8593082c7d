from japronto import Application


def done(request):
    print('done with', request.path, flush=True)


def second(request):
    print('and the second', flush=True)


def with_callback(request):
    request.add_done_callback(done)
    request.add_done_callback(second)
    return request.Response(text='cb')


async def with_callback_later(request):
    return with_callback(request)


app = Application()
app.router.add_route('/callback', with_callback)
app.router.add_route('/later', with_callback_later)
app.run()
