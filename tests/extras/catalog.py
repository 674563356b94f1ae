"""What is run with each extra, or with those that a page names together."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

from extras.room import Room, ask, free_port

Check = Callable[[Room], None]
CATALOG: dict[str, list[Check]] = {}


def needs(*extras: str) -> Callable[[Check], Check]:
    """A check that is run with these extras."""

    def add(check: Check) -> Check:
        CATALOG.setdefault(",".join(extras), []).append(check)
        return check

    return add


# --- none ----------------------------------------------------------------------------------------


@needs()
def examples_of_one_file(room: Room) -> None:
    room.copy("examples")
    for example in (
        "quickstart.py --files 40",
        "class_task.py",
        "progress_and_cancel.py",
        "futures_drop_in/names.py",
    ):
        room.run(f"python examples/{example}")


@needs()
def the_readme(room: Room) -> None:
    port = free_port()
    room.write_page("README.md", {"https://example.org/": f"http://127.0.0.1:{port}/"})
    assert len(room.run("python hashing.py").strip()) == 128
    with room.serving(f"python -u -m http.server {port} --bind 127.0.0.1", "Serving"):
        assert room.run("python fetching.py").endswith(" bytes\n")
    with room.serving("python clock.py", "tick\ntick"):
        pass


@needs()
def services(room: Room) -> None:
    port = free_port()
    room.write_page("docs/services.md", {"8000": str(port)})
    with room.serving("python shop.py", "", PYTHONPATH=""):
        assert ask(port, "/") == "Welcome"
    with room.serving("gtaskman services run shop.toml", "supervising"):
        room.run("gtaskman services status")
        assert ask(port, "/") == "Hello"
        room.run("gtaskman services call web set_greeting 'Good morning'")
        assert ask(port, "/") == "Good morning"
        room.run("gtaskman services reload web")
        assert ask(port, "/") == "Hello"


@needs()
def a_manager_of_the_host(room: Room) -> None:
    room.write_page("docs/cli.md")
    (room.directory / "shop" / "__init__.py").touch()
    url = f"unix://{room.directory}/gtaskman.sock"
    with room.serving(
        f"gtaskman run --bind unix:{room.directory}/gtaskman.sock shop.tasks", "serv"
    ):
        said = room.run(
            "gtaskman submit shop.tasks.total --arg '[1, 2, 3]' --json", GTASKMAN_URL=url
        )
        assert json.loads(said) == 6, said


# --- a queue without a server --------------------------------------------------------------------


@needs("embedded")
def a_durable_queue(room: Room) -> None:
    room.write_page("README.md")
    room.write_page("docs/cli.md")
    for package in ("app", "shop"):
        (room.directory / package / "__init__.py").touch()
    env = {"GTASKMAN_URL": "embedded:./queue"}
    with room.serving("gtaskman run app.tasks --max 4", "serving", **env):
        assert "report of 2026" in room.run("gtaskman submit app.tasks.report year=2026", **env)
        for command in ("stats", "tasks", "dead"):
            room.run(f"gtaskman {command}", **env)
        assert len(room.run("python web.py", **env).strip()) == 128
    with room.serving("gtaskman run shop.tasks", "serving", **env):
        for words in ("thumbnail path=a.png width=64", "total --arg '[1, 2, 3]' --json"):
            room.run(f"gtaskman submit shop.tasks.{words}", **env)
        task_id = room.run("gtaskman submit shop.tasks.report year=2026 --no-wait", **env).strip()
        assert "report of 2026" in room.run(f"gtaskman status {task_id} --wait", **env)


@needs("embedded")
def web_to_workers(room: Room) -> None:
    room.copy("examples/web_to_workers")
    room.run("python examples/web_to_workers/run.py")


@needs("embedded")
def a_system_of_services(room: Room) -> None:
    port = free_port()
    system = room.copy("examples/services") / "system.toml"
    system.write_text(system.read_text().replace("8080", str(port)))
    with room.serving(f"gtaskman services run {system}", "supervising"):
        assert "decoder" in ask(port, "/json/decoder.py")
        room.run("gtaskman services status")
        room.run("gtaskman services call ticker seen")


# --- gunicorn ------------------------------------------------------------------------------------


@needs("gunicorn")
def a_site_under_gunicorn(room: Room) -> None:
    port = free_port()
    room.copy("examples/legacy_app.py")
    command = f"gunicorn -k gevent -b 127.0.0.1:{port} legacy_app:app"
    with room.serving(command, "Booting worker", "examples"):
        assert ask(port, "/hash?password=secret")


@needs("gunicorn")
def the_line_in_the_configuration_of_gunicorn(room: Room) -> None:
    room.copy("examples/legacy_app.py")
    for mode in ("embedded", "host"):
        port = free_port()
        room.write_page("docs/gunicorn.md", {'mode="embedded"': f'mode="{mode}"'})
        command = f"gunicorn -k gevent -b 127.0.0.1:{port} --pythonpath examples legacy_app:app"
        with room.serving(command, "Booting worker"):
            assert ask(port, "/hash?password=secret")


@needs("gunicorn")
def one_manager_for_gunicorn(room: Room) -> None:
    room.copy("examples/gunicorn_host")
    room.run("python examples/gunicorn_host/run.py")


# --- Flask ---------------------------------------------------------------------------------------


@needs("flask")
def a_flask_application(room: Room) -> None:
    port = free_port()
    room.write_page("docs/flask.md")
    with room.serving(f"flask --app shop run --port {port}", "Running on"):
        assert len(ask(port, "/digest/hello")) == 64
    url = f"unix://{room.directory}/shop.sock"
    with room.serving(
        f"flask --app shop gtaskman run --bind unix:{room.directory}/shop.sock", "serv"
    ):
        command = "flask --app shop gtaskman submit shop.digest text=hello"
        assert len(room.run(command, GTASKMAN_URL=url).split()[-1].strip("'")) == 64


@needs("flask", "embedded")
def the_commands_of_a_flask_application(room: Room) -> None:
    room.write_page("docs/flask.md")
    env = {"GTASKMAN_URL": "embedded:./queue"}
    with room.serving("flask --app shop gtaskman run", "serving", **env):
        command = "flask --app shop gtaskman submit shop.digest text=hello --no-wait"
        task_id = room.run(command, **env).strip()
        room.run(f"flask --app shop gtaskman status {task_id} --wait", **env)
        room.run("flask --app shop gtaskman stats", **env)


@needs("flask", "gunicorn")
def a_flask_site(room: Room) -> None:
    port = free_port()
    room.copy("examples/flask_site")
    command = f"gunicorn -c gunicorn.conf.py -b 127.0.0.1:{port} 'accounts:create_app()'"
    with room.serving(command, "Booting worker", "examples/flask_site"):
        ask(port, "/accounts", b"name=ada&password=secret")
        ask(port, "/login", b"name=ada&password=secret")


@needs("flask", "gunicorn")
def a_flask_application_under_gunicorn(room: Room) -> None:
    port = free_port()
    room.write_page("docs/flask.md")
    with room.serving(f"gunicorn -b 127.0.0.1:{port} shop:app", "Booting worker"):
        assert len(ask(port, "/digest/hello")) == 64


@needs("flask", "gunicorn")
def a_flask_application_under_other_workers(room: Room) -> None:
    room.write_page("docs/flask.md")
    (room.directory / "gunicorn.conf.py").unlink()
    for worker_class in ("sync", "gthread"):
        port = free_port()
        command = f"gunicorn -k {worker_class} -b 127.0.0.1:{port} shop:app"
        with room.serving(command, "Booting worker"):
            assert len(ask(port, "/digest/hello")) == 64


# --- Django --------------------------------------------------------------------------------------


@needs("django")
def a_new_django_site(room: Room) -> None:
    room.run("django-admin startproject books .")
    room.run("python manage.py startapp shop")
    room.write_page("docs/django.md")
    settings = room.directory / "books" / "settings.py"
    given = 'INSTALLED_APPS = [\n    "gtaskman.contrib.django",\n    "shop",'
    settings.write_text(settings.read_text().replace("INSTALLED_APPS = [", given))
    (room.directory / "shop" / "models.py").write_text("import shop.tasks\n")
    for words in ("check", "migrate", f"shell -c {shlex.quote(IN_A_SHELL)}"):
        said = room.run(f"python manage.py {words}")
    assert said.endswith("0 users, None\n"), said
    env = {"GTASKMAN_URL": f"unix://{room.directory}/shop.sock"}
    command = f"python manage.py gtaskman run --bind unix:{room.directory}/shop.sock"
    with room.serving(command, "serving"):
        words = "submit shop.tasks.send_invoice order_id=7 --no-wait"
        task_id = room.run(f"python manage.py gtaskman {words}", **env).strip()
        room.run(f"python manage.py gtaskman status {task_id} --wait", **env)


@needs("django")
def the_commands_of_a_django_site(room: Room) -> None:
    site = "examples/django_site"
    room.copy(site)
    for words in ("check", "migrate", "load_books"):
        room.run(f"python manage.py {words}", site)
    url = f"unix://{room.directory}/shop.sock"
    command = f"python manage.py gtaskman run --bind unix:{room.directory}/shop.sock"
    with room.serving(command, "serv", site):
        room.run("python manage.py gtaskman stats", site, BOOKSHOP_GTASKMAN_URL=url)


@needs("django", "gunicorn")
def a_django_site(room: Room) -> None:
    port, site = free_port(), "examples/django_site"
    room.copy(site)
    for words in ("migrate", "load_books"):
        room.run(f"python manage.py {words}", site)
    with room.serving(f"gunicorn -b 127.0.0.1:{port} bookshop.wsgi", "Booting worker", site):
        json.loads(ask(port, "/search?pattern=class"))
        ask(port, "/books/1/count", b"")
        ask(port, "/books/1")


IN_A_SHELL = """
import time
from django.contrib.auth.models import User
from gtaskman.contrib.django import offload
from shop.tasks import send_invoice
handle = send_invoice.submit(7)
while not handle.done(): time.sleep(0.01)
print(offload(User).count(), "users,", handle.get())
"""

# --- the others ----------------------------------------------------------------------------------

LAMBDA = """
import gtaskman

if __name__ == "__main__":
    print(gtaskman.submit(lambda number: 2 * number, 21).get(timeout=60))
"""


@needs("cloudpickle")
def functions_without_a_name(room: Room) -> None:
    (room.directory / "nameless.py").write_text(LAMBDA)
    assert room.run("python nameless.py") == "42\n"


@needs("benchmark")
def benchmarks(room: Room) -> None:
    room.copy("benchmarks")
    room.run("python -m benchmarks local --quick --only start --plot figures.png")
