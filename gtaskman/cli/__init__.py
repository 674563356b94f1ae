"""The command line: ``gtaskman run``, ``submit``, ``tasks`` and so on; see ``main.py``.

It stands on top of everything else, and nothing imports it.
"""
