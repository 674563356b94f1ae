"""Its tasks."""

import os

import gevent
from flask import current_app, g

import gtaskman
from flask_apps.shop.extensions import ext

teardowns = []


def tell(error):
    teardowns.append((getattr(g, "name", None), None if error is None else type(error).__name__))


@ext.task
def look(name: str) -> dict:
    before = g.get("name")
    g.name = name
    return {"colour": current_app.config["COLOUR"], "before": before, "pid": os.getpid()}


@ext.task
def torn_down() -> list:
    return teardowns


@ext.task
def number() -> int:
    """Which application of this worker this is: 1 is the first one that was made."""
    return current_app.config["NUMBER"]


@ext.task
def twice(name: str) -> tuple:
    """Call a task as a function: that is no task of its own."""
    g.name = "caller"
    return look(name)["before"], g.name


class Unlucky(Exception):
    def __init__(self, number):
        super().__init__(number)
        self.number = number


@ext.task
def fail(name: str) -> None:
    g.name = name
    raise Unlucky(13)


@ext.task(timeout=1)
def spin(name: str) -> None:
    g.name = name
    while True:
        pass


@ext.task(kind="async")
def meet(name: str) -> str:
    """Stay for a while beside others that say something else."""
    g.name = name
    gevent.sleep(0.05)
    return g.name + current_app.config["COLOUR"]


@ext.task
class Painted(gtaskman.Task, timeout=20):
    what: str

    def run(self, progress):
        progress.update(50, message="half of it")
        return f"{current_app.config['COLOUR']} {self.what}"


class Repainted(Painted):
    times: int = 2

    def run(self, progress):
        return [super().run(progress)] * self.times
