"""A hook that the configuration names by a dotted name."""

import os
from pathlib import Path


def on_exit(server):
    with open(Path(os.environ["SERVED_DIRECTORY"], "news"), "a") as file:
        file.write(f"on_exit {os.getpid()}\n")
