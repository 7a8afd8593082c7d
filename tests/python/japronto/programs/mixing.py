import asyncio

from japronto import Application


def at_once(request):
    return request.Response(text='I did not wait.')


async def after_some_time(request):
    for number in range(1, 4):
        await asyncio.sleep(0.01)
        print(number, 'of 3 rests', flush=True)

    return request.Response(text='I waited.')


app = Application()

router = app.router
router.add_route('/sync', at_once)
router.add_route('/async', after_some_time)

app.run()
