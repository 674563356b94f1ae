"""An application in the main module, as small ones are: ``python shop.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask
from worlds import run_python

from gtaskman import default
from gtaskman.contrib.flask import GTaskman

HERE = Path(__file__).resolve().parent
SCRIPT = """
{patch}
from flask import Flask, current_app
from flask_apps.plain import colour
from gtaskman.contrib.flask import GTaskman
import gtaskman

app = Flask(__name__)
app.config.update(COLOUR="red", GTASKMAN_MAX_PROCESSES=1, GTASKMAN_START_METHOD={method!r})
ext = GTaskman(app)

@ext.task
def look():
    return current_app.config["COLOUR"]

def bare(word):
    return word + current_app.config["COLOUR"]

if __name__ == "__main__":
    handles = ext.submit(colour, "very "), look.submit(), ext.submit(bare, "so ")
    print(*[handle.get(30) for handle in handles])
"""


@pytest.mark.parametrize("method", ["zygote", "spawn", "fork"])
@pytest.mark.parametrize("patch", ["", "from gevent import monkey; monkey.patch_all()"],
                         ids=["unpatched", "patched"])  # fmt: skip
def test_its_tasks_find_it(tmp_path, method, patch):
    script = tmp_path / "small.py"
    script.write_text(SCRIPT.format(patch=patch, method=method))
    done = run_python(str(script), directory=tmp_path, env={"PYTHONPATH": str(HERE)})
    assert done.code == 0, done.output
    assert done.output.splitlines()[-1] == "very red red so red"


BLOCKING = """
import time

{patch}
from flask import Flask
from gtaskman.contrib.flask import GTaskman
import gtaskman

app = Flask(__name__)
app.config.update({config})
ext = GTaskman(app)

@ext.task
def double(number: int) -> int:
    return 2 * number

if __name__ == "__main__":
    handles = [double.submit(number) for number in range(20)]
    while not all(handle.done() for handle in handles):
        time.sleep(0.01)
    print(sum(handle.get() for handle in handles))
    print(gtaskman.default.manager().background)
"""


@pytest.mark.parametrize(
    ("patch", "config", "background"),
    [
        ("", "", True),
        ("", "GTASKMAN_MAX_PROCESSES=1", True),
        ("from gevent import monkey; monkey.patch_all()", "GTASKMAN_MAX_PROCESSES=1", False),
    ],
    ids=["unpatched", "unpatched-configured", "patched"],
)
def test_tasks_run_while_the_main_thread_never_waits_for_them(tmp_path, patch, config, background):
    script = tmp_path / "blocking.py"
    script.write_text(BLOCKING.format(patch=patch, config=config))
    done = run_python(str(script), directory=tmp_path, env={"PYTHONPATH": str(HERE)})
    assert done.code == 0, done.output
    assert done.output.split() == ["380", str(background)]


def test_where_the_manager_runs_can_be_said():
    app = Flask("elsewhere")
    app.config["GTASKMAN_BACKGROUND"] = False
    GTaskman(app)
    assert not default.manager().background
