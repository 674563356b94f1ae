"""The main module of the worlds without a server."""

import os

if os.environ["WORLD"] == "patched":
    from gevent import monkey

    monkey.patch_all()

import json

from scenarios import stage

if __name__ == "__main__":
    stage.perform(json.loads(os.environ["WORLD_SCENARIO"]))
