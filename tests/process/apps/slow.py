"""Takes long to be imported anywhere; says so in the file that ``SLOW_IMPORT`` names first."""

import os
import time

if "SLOW_IMPORT" in os.environ:
    path = os.environ["SLOW_IMPORT"]
    with open(f"{path}.part", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{path}.part", path)
    time.sleep(600)
