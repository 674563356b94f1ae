"""Applications in unusual states: workers start all the same, or the error names the mend."""

from __future__ import annotations

import os
import textwrap

import pytest
from worlds import run_python

GUARDED = """\
{before}
import os, signal, sys, time
import gevent
import gtaskman

{module}

@gtaskman.task
def double(number):
    return 2 * number

@gtaskman.task
def spin():
    while True:
        pass

@gtaskman.task
def write_to_standard_output():
    for fd in (1, 2):
        os.write(fd, b"what C code prints")
    return "written"

if __name__ == "__main__":
{main}
"""
START = """
config = gtaskman.Configuration(max_processes=1, start_method={start_method!r})
with gtaskman.TaskManager(config=config) as manager:
"""


@pytest.fixture
def run(tmp_path):
    """Run an application in a fresh process; gives its exit code and output."""

    def start(main, *arguments, before="", module="", start_method="zygote", env=None):
        text = GUARDED.format(
            before=before,
            module=module,
            main=textwrap.indent(
                main.replace("START", START.format(start_method=start_method)), "    "
            ),
        )
        (tmp_path / "app.py").write_text(text)
        done = run_python(str(tmp_path / "app.py"), *arguments, directory=tmp_path, env=env)
        return done.code, done.output

    return start


DOUBLE = """
START
    print("doubled", manager.submit(double, 4).get(timeout=30))
"""


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
def test_arguments_larger_than_a_packet(run, start_method):
    code, output = run(DOUBLE, *["x" * 100] * 4000, start_method=start_method)
    assert (code, "doubled 8" in output) == (0, True), output


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
def test_a_path_object_in_the_import_path(run, start_method):
    before = "import pathlib, sys; sys.path.append(pathlib.Path('/nowhere'))"
    code, output = run(DOUBLE, before=before, start_method=start_method)
    assert (code, "doubled 8" in output) == (0, True), output


@pytest.mark.parametrize("start_method", ["zygote", "spawn", "fork"])
def test_a_working_directory_that_was_removed(run, tmp_path, start_method):
    before = (
        f"import os; os.mkdir({str(tmp_path / 'old')!r}); os.chdir({str(tmp_path / 'old')!r});"
        f" os.rmdir({str(tmp_path / 'old')!r})"
    )
    main = f"import os; sys.path.insert(0, {str(tmp_path)!r})\n" + DOUBLE
    guarded = f"if __name__ == '__main__':\n    {before}"
    code, output = run(main, before=guarded, start_method=start_method)
    assert (code, "doubled 8" in output) == (0, True), output


@pytest.mark.parametrize("start_method", ["zygote", "spawn", "fork"])
def test_closed_output_is_no_workers_pipe(run, tmp_path, start_method):
    main = """
os.close(1); os.close(2)
START
    told = manager.submit(write_to_standard_output).get(timeout=30)
    again = manager.submit(double, 4).get(timeout=30)
    open({path!r}, "w").write(f"{{told}} {{again}}")
""".format(path=str(tmp_path / "told"))
    code, output = run(main, start_method=start_method)
    assert code == 0, output
    assert (tmp_path / "told").read_text() == "written 8"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its user")
def test_an_application_that_gives_up_its_rights_after_the_start(run, tmp_path):
    # The tasks are in a module: afterwards the application may not be able to read its own file.
    (tmp_path / "spinning.py").write_text(
        """
import gtaskman

@gtaskman.task
def spin():
    while True:
        pass

@gtaskman.task(timeout=0.2)
def spin_for_a_moment():
    while True:
        pass
"""
    )
    main = """
config = gtaskman.Configuration(max_processes=1, kill_grace=0.1)
manager = gtaskman.TaskManager(config=config).start()
assert manager.wait_ready(30)
os.setuid(65534)
task = manager.submit(spinning.spin_for_a_moment)
try:
    task.get(timeout=30)
except gtaskman.TaskTimedOut:
    print("timed out")
running = manager.submit(spinning.spin)
while running.report.status.value != "processing":
    gevent.sleep(0.01)
manager.stop(0)
print("stopped", running.report.status.value)
"""
    code, output = run(main, module="import spinning")
    assert (code, "timed out" in output, "stopped" in output) == (0, True, True), output


def test_a_frozen_application_is_not_started_as_its_own_worker(run):
    main = """
sys.frozen = True
try:
    gtaskman.TaskManager().start()
    gevent.sleep(0)
except gtaskman.StartMethodError as error:
    print(error)
"""
    code, output = run(main)
    assert code == 0, output
    assert "GTASKMAN_PYTHON" in output


def test_an_interpreter_that_is_named_is_taken(run):
    before = "import os, sys; os.environ['GTASKMAN_PYTHON'] = sys.executable; sys.frozen = True"
    code, output = run(DOUBLE, before=before)
    assert (code, "doubled 8" in output) == (0, True), output


def test_an_application_that_was_started_as_a_worker_refuses(run):
    main = """
try:
    gtaskman.TaskManager().start()
except gtaskman.StartMethodError as error:
    print("refused:", error)
"""
    code, output = run(main, env={"GTASKMAN_CHILD_OF": "1"})
    assert (code, "refused:" in output) == (0, True), output


def test_workers_know_nothing_of_how_they_were_started(run):
    module = """
@gtaskman.task
def environment():
    return [name for name in os.environ if name.startswith("GTASKMAN_CHILD")]
"""
    main = """
START
    print("found", manager.submit(environment).get(timeout=30))
"""
    code, output = run(main, module=module)
    assert (code, "found []" in output) == (0, True), output


def test_a_main_module_that_cannot_be_imported_twice_names_the_guard(run):
    module = """
import socket
server = socket.socket()
server.bind(("127.0.0.1", int(os.environ.setdefault("PORT", "0")) or 0))
os.environ["PORT"] = str(server.getsockname()[1])
"""
    main = """
START
    try:
        manager.submit(double, 4).get(timeout=30)
    except gtaskman.TaskFailed as error:
        print(error)
"""
    code, output = run(main, module=module)
    assert code == 0, output
    assert "Address already in use" in output
    assert "if __name__ == '__main__':" in output


# --- what the template may import ----------------------------------------------------------------


def _import_in_template(run, tmp_path, *modules):
    """Submit a task of each module; gives the output, and how many workers had each imported."""
    for name, text in modules:
        (tmp_path / f"{name}.py").write_text(
            f"{text}\nimport os\nfirst = os.getpid()\ndef ask():\n    return os.getpid() == first\n"
        )
    names = [name for name, _ in modules]
    main = f"""
import importlib
config = gtaskman.Configuration(min_processes=1, max_processes=1, max_tasks_per_process=1)
with gtaskman.TaskManager(config=config) as manager:
    assert manager.wait_ready(30)
    found = [importlib.import_module(name) for name in {names!r}]
    for _ in range(4):
        for each in [manager.submit(module.ask) for module in found]:
            each.get(timeout=30)
    alone = [manager.submit(module.ask).get(timeout=30) for module in found]
    print("imported by the worker itself:", alone)
"""
    code, output = run(main)
    assert code == 0, output
    return output


def test_a_module_that_makes_a_hub_and_uses_it_for_nothing_stays(run, tmp_path):
    hub = "import gevent\nhub = gevent.get_hub()\nlock = gevent.lock.RLock()"
    output = _import_in_template(run, tmp_path, ("lazy", "import gevent.lock\n" + hub))
    assert "imported by the worker itself: [False]" in output
    assert "import 'lazy' by themselves" not in output


def test_a_hub_of_the_template_works_in_each_worker(run):
    module = """
import gevent.event
made_at_import = gevent.get_hub()
event = gevent.event.Event()

@gtaskman.task
def use_the_hub():
    gevent.spawn_later(0.01, event.set)
    assert event.wait(20)
    assert gevent.get_hub() is made_at_import
    with gevent.Timeout(20):
        return gevent.get_hub().threadpool.apply(pow, (2, 5))
"""
    main = """
config = gtaskman.Configuration(min_processes=2, max_processes=2, start_method="zygote")
with gtaskman.TaskManager(config=config) as manager:
    handles = [manager.submit(use_the_hub) for _ in range(4)]
    print("made", [each.get(timeout=30) for each in handles])
"""
    code, output = run(main, module=module)
    assert (code, "made [32, 32, 32, 32]" in output) == (0, True), output
    assert "by themselves" not in output


def test_a_module_that_is_fit_is_not_left_out_for_the_one_before_it(run, tmp_path):
    unfit = "import gevent\nbackground = gevent.spawn(gevent.sleep, 1000)"
    output = _import_in_template(run, tmp_path, ("unfit_a", unfit), ("fit_b", ""))
    assert "import 'unfit_a' by themselves" in output
    assert "import 'fit_b' by themselves" not in output
    assert "imported by the worker itself: [True, False]" in output


def test_the_warning_about_threads_names_the_mend(run, tmp_path):
    threads = "import _thread, time\n_thread.start_new_thread(time.sleep, (1000,))"
    output = _import_in_template(run, tmp_path, ("threads", threads))
    assert "OPENBLAS_NUM_THREADS=1" in output
