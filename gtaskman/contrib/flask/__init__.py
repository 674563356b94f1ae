"""Flask: tasks that run inside the application's context.

::

    gtaskman = GTaskman(app)                    # or GTaskman(), and init_app(app) in the factory

    @gtaskman.task
    def register(name: str, password: str) -> int: ...

    register.submit("ada", "secret").get()      # in a worker, inside app.app_context()

====================  =========================================================================
``extension``         :class:`GTaskman`
``settings``          the configuration keys ``GTASKMAN_*``
``applications``      which application a task gets in its worker, and its context
``commands``          ``flask gtaskman run | submit | status | ...``
====================  =========================================================================

Nothing is started by importing it or by ``init_app``: the first submit does.
"""

from gtaskman.contrib.flask.extension import GTaskman

__all__ = ["GTaskman"]
