"""An application that is to be made for each task, and has no factory."""

from flask import Flask

from gtaskman.contrib.flask import GTaskman

app = Flask(__name__)
app.config.update(GTASKMAN_APP_PER_TASK=True, GTASKMAN_MAX_PROCESSES=1)
ext = GTaskman(app, factory="flask_apps.stuck:app")


@ext.task
def stick() -> None:
    pass
