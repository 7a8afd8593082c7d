import sqlite3
import sys

from japronto import Application, RouteNotFoundException

DATABASE = sys.argv[1]

with sqlite3.connect(DATABASE) as connection:
    connection.execute(
        'CREATE TABLE IF NOT EXISTS todos (id INTEGER PRIMARY KEY, todo TEXT NOT NULL)')
connection.close()


def cursor(request):
    def done_cb(request):
        request.extra['conn'].commit()
        request.extra['conn'].close()

    if 'conn' not in request.extra:
        request.extra['conn'] = sqlite3.connect(DATABASE)
        request.add_done_callback(done_cb)

    return request.extra['conn'].cursor()


def add_todo(request):
    cur = request.cursor
    todo = request.json['todo']
    cur.execute('INSERT INTO todos (todo) VALUES (?)', (todo,))
    return request.Response(json={'id': cur.lastrowid, 'todo': todo}, code=201)


def list_todos(request):
    rows = request.cursor.execute('SELECT id, todo FROM todos ORDER BY id')
    return request.Response(
        json={'results': [{'id': number, 'todo': todo} for number, todo in rows]})


class TodoNotFound(Exception):
    pass


def find(request):
    number = int(request.match_dict['id'])
    row = request.cursor.execute(
        'SELECT id, todo FROM todos WHERE id = ?', (number,)).fetchone()
    if row is None:
        raise TodoNotFound(number)
    return row


def show_todo(request):
    number, todo = find(request)
    return request.Response(json={'id': number, 'todo': todo})


def delete_todo(request):
    number, _ = find(request)
    request.cursor.execute('DELETE FROM todos WHERE id = ?', (number,))
    return request.Response(json={})


def not_found(request, exception):
    return request.Response(json={'error': 'not found'}, code=404)


app = Application()
app.add_error_handler(TodoNotFound, not_found)
app.add_error_handler(RouteNotFoundException, not_found)
app.extend_request(cursor, property=True)

router = app.router
router.add_route('/todos', list_todos, method='GET')
router.add_route('/todos', add_todo, method='POST')
router.add_route('/todos/{id}', show_todo, method='GET')
router.add_route('/todos/{id}', delete_todo, method='DELETE')

app.run(debug=True)
