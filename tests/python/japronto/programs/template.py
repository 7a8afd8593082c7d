import os.path
import string

from japronto import Application

HERE = os.path.dirname(os.path.abspath(__file__))
PAGE = string.Template('<h1>$title</h1><ul>$rows</ul>')


def from_file(request):
    with open(os.path.join(HERE, 'template.html')) as page:
        return request.Response(text=page.read(), mime_type='text/html')


def literal(request):
    return request.Response(text='<h1>A literal</h1>', mime_type='text/html')


def rendered(request):
    rows = ''.join('<li>{}</li>'.format(name) for name in sorted(request.query))
    return request.Response(
        text=PAGE.substitute(title='A template', rows=rows), mime_type='text/html')


app = Application()
app.router.add_route('/file', from_file)
app.router.add_route('/literal', literal)
app.router.add_route('/rendered', rendered)
app.run()
