"""An application in the main module, as small ones are: ``python site.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from worlds import run_python

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
