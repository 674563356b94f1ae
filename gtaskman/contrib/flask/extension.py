"""``GTaskman``: the extension, its tasks, and how they get their application."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from flask import Flask

from gtaskman import default
from gtaskman.contrib.flask.applications import (
    InContext,
    application_at,
    current,
    guessed,
    inside,
    making,
    named,
)
from gtaskman.contrib.flask.commands import commands
from gtaskman.contrib.flask.settings import APP, PER_TASK, Settings
from gtaskman.errors import ConfigurationError, TaskDefinitionError, TaskTravelError
from gtaskman.task import LIMITS, Definition, FunctionTask, Task, TaskFunction, call
from gtaskman.task import task as make_task

if TYPE_CHECKING:
    from gtaskman.handle import TaskHandle

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=Task)

EXTENSION = "gtaskman"
_KEPT = 4096  # definitions of plain tasks that are kept: each worker learns them once


class GTaskman:
    """Tasks of a Flask application: they run in workers, each inside ``app.app_context()``.

    ::

        gtaskman = GTaskman(app)

    or, with a factory that is called in the application and in each worker::

        gtaskman = GTaskman()           # GTaskman(factory="shop:create_app"), if it is elsewhere

        def create_app():
            app = Flask(__name__)
            gtaskman.init_app(app)
            return app

    ``factory`` is where workers find the application, as ``flask --app`` has it; without it they
    look for ``GTASKMAN_APP``, and else in the module of the task and in the packages above it.
    """

    def __init__(self, app: Flask | None = None, *, factory: str | None = None) -> None:
        self.factory = factory
        self._served: weakref.ref[Flask] | None = None
        self._path: str | None = None  # of the application that was served last
        self._tasks: weakref.WeakSet[Any] = weakref.WeakSet()  # the code of those made by `task`
        self._carriers: dict[int, Definition] = {}
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Serve this application. Starts and opens nothing: the first submit does.

        Raises :class:`ConfigurationError`, which names the key, for a ``GTASKMAN_*`` setting that
        makes no sense.
        """
        settings = Settings.of(app)
        path = self.factory or settings.path or os.environ.get(APP)
        if settings.per_task and path is None:
            raise ConfigurationError(
                f"{PER_TASK} needs a factory: set {APP}, or GTaskman(factory=...), to"
                " 'module:factory'",
                PER_TASK,
            )
        if settings.path and not self.factory:
            _tell_workers(settings.path)
        self._served = weakref.ref(app)
        self._path = self.path_of(app)
        app.extensions[EXTENSION] = self
        app.cli.add_command(commands)
        # A shell and synchronous servers compute and wait without a hub.
        default.assume_blocking()
        settings.apply(app.name)

    # --- making tasks

    @overload
    def task(self, code: type[T], /) -> type[T]: ...  # type: ignore[overload-overlap] # classes first

    @overload
    def task(self, code: Callable[P, R], /) -> TaskFunction[P, R]: ...

    @overload
    def task(
        self, code: None = None, /, **options: Any
    ) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...

    def task(self, code: Any = None, /, **options: Any) -> Any:
        """Make a function a task that runs inside the application's context.

        The options are those of :func:`gtaskman.task`. It decorates a class derived from
        :class:`gtaskman.Task` as well, whose options are in the class statement. Called directly,
        either runs right here, in whatever context there is.
        """
        if code is None:
            return functools.partial(self.task, **options)
        if isinstance(code, TaskFunction):
            raise TaskDefinitionError(
                f"{code.definition.name} is a task already: decorate the function once"
            )
        if isinstance(code, type) and issubclass(code, Task):
            return self._task_class(code, options)
        made: Any = make_task(**options)(inside(self._finding(code), code))
        self._tasks.add(made.definition.target)
        return made

    def _task_class(self, code: type[T], options: dict[str, Any]) -> type[T]:
        if options:
            raise TaskDefinitionError(
                f"{code.__name__}: options of a task in class form go in the class statement, as"
                f" in class {code.__name__}(gtaskman.Task, {next(iter(options))}=...)"
            )
        perform = inside(self._finding(code), code.perform.__func__)  # type: ignore[attr-defined] # a classmethod has it
        code.perform = classmethod(perform)  # type: ignore[assignment, method-assign] # that is the point
        self._tasks.add(code)
        return code

    def _finding(self, code: Any) -> Callable[[], Flask]:
        return functools.partial(self.application, getattr(code, "__module__", None) or "")

    # --- submitting

    def submit(self, task: Any, /, *args: Any, **kwargs: Any) -> TaskHandle:
        """Submit a task to the process's default manager; see :func:`gtaskman.submit`.

        Tasks of this extension are no different from those that are submitted by their own
        ``submit``. Others, plain functions of ``@gtaskman.task`` or any callable, run inside the
        context of the current application, too. With a queue on a server, where they travel by
        their names alone, it is the manager's side, ``flask gtaskman run``, that sees to that.
        """
        manager = default.manager()
        if self._is_ours(task):
            return manager.submit(task, *args, **kwargs)
        if isinstance(task, TaskFunction):
            task, args, kwargs = task.task(*args, **kwargs), (), {}
        try:
            return self._submit_carried(manager, task, args, kwargs)
        except TaskTravelError:
            # Where tasks travel by their names alone, none can be carried by another.
            return manager.submit(task, *args, **kwargs)

    def _submit_carried(
        self, manager: Any, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> TaskHandle:
        submit: Callable[..., TaskHandle] = manager.submit
        if not isinstance(task, Task):
            return submit(InContext(self._destination(), task), *args, **kwargs)
        if args or kwargs:
            return submit(task, *args, **kwargs)  # which says what is wrong about it
        return submit(self._carried(task))

    def _is_ours(self, task: Any) -> bool:
        if isinstance(task, (TaskFunction, FunctionTask)):
            return task.definition.target in self._tasks
        return any(base in self._tasks for base in type(task).__mro__)

    def _carried(self, task: Task) -> FunctionTask:
        """The same call, of the same name and under the same limits, inside the context."""
        known = task.definition
        if not isinstance(task, FunctionTask):
            raise TaskDefinitionError(
                f"{known.name} is a task in class form that knows nothing of Flask: decorate the"
                " class with this extension's task, or submit it with gtaskman.submit"
            )
        terms = task.terms
        unique = known.unique_key(terms.unique, task.args, task.kwargs)
        if unique:
            terms = terms.replace(unique=unique)  # made of the call as it was
        function = InContext(self._destination(), named(known.target))
        return FunctionTask(
            self._carrier(known), (function, *task.args), task.kwargs, task.id, terms
        )

    def _carrier(self, known: Definition) -> Definition:
        made = self._carriers.get(known.number)
        if made is None:
            limits = {limit: getattr(known, limit) for limit in LIMITS}
            made = Definition(known.name, known.kind, call, **limits)
            if len(self._carriers) >= _KEPT:
                self._carriers.clear()
            self._carriers[known.number] = made
        return made

    # --- the application

    def application(self, module: str) -> Flask:
        """The application for a task that is defined in ``module``, made if need be.

        Raises :class:`ConfigurationError` if it is not to be found.
        """
        with making:
            here = self._present()
            if here is not None and not here.config.get(PER_TASK):
                return here
            path = self.factory or os.environ.get(APP)
            found = application_at(path) if path else guessed(module)
        if found is None:
            raise ConfigurationError(
                f"the worker does not know the application of the tasks in {module!r}: set {APP},"
                " or GTaskman(factory=...), to 'module:factory' or 'module:name'",
                APP,
            )
        if not self._serves(found):
            raise ConfigurationError(
                f"the application {found.name!r} does not serve the tasks in {module!r}: its"
                " factory has to call init_app of the extension that made them",
                APP,
            )
        return found

    def _present(self) -> Flask | None:
        """An application that is here already and is ours: the current one, or the last one."""
        app = current()
        if app is not None and self._serves(app):
            return app
        return self._served() if self._served is not None else None

    def path_of(self, app: Flask) -> str:
        """Where workers find this application."""
        said = self.factory or app.config.get(APP) or os.environ.get(APP)
        return str(said or app.import_name)

    def _serves(self, app: Flask) -> bool:
        return app.extensions.get(EXTENSION) is self

    def _destination(self) -> str:
        """Where workers find the application that a task is for: the current, or the last one."""
        app = current()
        if app is not None and self._serves(app):
            return self.path_of(app)
        if self._path is None:
            raise ConfigurationError(
                "this extension has no application yet: call init_app(app) before submit"
            )
        return self._path

    def contained(self, known: Definition) -> Definition:
        """The definition, whose code runs inside the context if that was not so before.

        For a manager that gets tasks by their names. A task in class form stays as it is.
        """
        target = known.target
        if target in self._tasks or isinstance(target, (type, InContext)):
            return known
        limits = {limit: getattr(known, limit) for limit in LIMITS}
        function = InContext(self._destination(), target)
        return Definition(known.name, known.kind, function, terms=known.terms, **limits)


def _tell_workers(path: str) -> None:
    """They inherit the environment, whoever starts them."""
    known = os.environ.setdefault(APP, path)
    if known != path:
        raise ConfigurationError(
            f"{APP} is {path!r} in this application, and {known!r} in the environment or in"
            " another application of this process: give each its own by GTaskman(factory=...)",
            APP,
        )
