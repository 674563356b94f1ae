"""Tasks that know nothing of Flask's extension, though they ask for the current application."""

from flask import current_app, g

import gtaskman


@gtaskman.task
def colour(prefix: str) -> str:
    return prefix + current_app.config["COLOUR"]


@gtaskman.task(name="plain.limited", timeout=30, unique=True)
def limited(number: int) -> tuple[str, str]:
    current = gtaskman.current()
    assert current.deadline is not None
    return current.name, current_app.config["COLOUR"]


def undecorated(word: str) -> str:
    return f"{word} {current_app.config['COLOUR']}"


class Plain(gtaskman.Task):
    def run(self, _progress):
        return current_app.name


def nothing_of_before() -> bool:
    return "name" not in g
