"""The plugin for pytest, in real runs of pytest."""

from __future__ import annotations

import re
import textwrap

import pytest
from worlds import Completed, run_python

WORK = """
import os
import gtaskman

@gtaskman.task
def where():
    return os.getpid()

def settings():
    return gtaskman.default.manager().config
"""

# Loaded by its name: it may be known by an entry point as well, or not.
# Its summary is cut off at the width of the terminal, and names a long path first.
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "1000"}


@pytest.fixture
def run(tmp_path):
    """Runs pytest on a module of tests, and gives how many passed, failed and so on."""

    def run(text, ini="", arguments=("-p", "gtaskman.testing.plugin")) -> tuple[dict, Completed]:
        (tmp_path / "work.py").write_text(WORK)
        (tmp_path / "test_it.py").write_text(textwrap.dedent(text))
        options = "--strict-markers --strict-config"
        (tmp_path / "pytest.ini").write_text(f"[pytest]\naddopts = {options}\n{ini}")
        done = run_python(
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(tmp_path),
            *arguments,
            str(tmp_path / "test_it.py"),
            directory=tmp_path,
            timeout=60,
            env=ALONE,
        )
        counts = {
            what.rstrip("s"): int(count)
            for count, what in re.findall(r"(\d+) (\w+)", done.output.splitlines()[-1])
        }
        return counts, done

    return run


FIXTURES = """
    import os
    import gtaskman
    import pytest
    import work

    seen = []

    def test_real(gtaskman_manager):
        assert gtaskman.default.manager() is gtaskman_manager
        assert gtaskman_manager.config.max_processes == 2
        pid = work.where.submit().get(timeout=30)
        assert pid in gtaskman_manager.pids() and pid != os.getpid()
        seen.append(gtaskman_manager)

    def test_afterwards():
        (manager,) = seen
        assert manager.pids() == []
        assert gtaskman.default.current() is None

    def test_eager(gtaskman_eager):
        assert gtaskman.default.manager() is gtaskman_eager
        handle = work.where.submit()
        assert handle.done() and handle.get() == os.getpid()

    def test_what_a_test_leaves_running_is_stopped(gtaskman_manager):
        gtaskman.submit(__import__("time").sleep, 3600)

    def test_what_a_test_leaves_waiting_is_cancelled(gtaskman_eager):
        gtaskman_eager.pause()
        seen.append(gtaskman.submit(work.where))

    def test_it_was():
        with pytest.raises(gtaskman.TaskCancelled):
            seen[-1].get(0)
"""


def test_fixtures(run):
    counts, done = run(FIXTURES)

    assert (done.code, counts.get("passed")) == (0, 6), done.output


SETTINGS = """
    import gtaskman
    import pytest
    import work

    pytestmark = pytest.mark.gtaskman(max_processes=3)

    def test_ini(gtaskman_eager):
        assert work.settings().start_method == "spawn"
        assert work.settings().nice == 5
        assert work.settings().preload == ("json", "csv")

    def test_module(gtaskman_manager):
        assert work.settings() is gtaskman_manager.config
        assert (gtaskman_manager.config.max_processes, gtaskman_manager.config.nice) == (3, 5)

    @pytest.mark.gtaskman(nice=1)
    class TestMany:
        def test_class(self, gtaskman_eager):
            assert (work.settings().max_processes, work.settings().nice) == (3, 1)

        @pytest.mark.gtaskman(max_processes=1, start_method="zygote")
        def test_function(self, gtaskman_manager):
            config = work.settings()
            assert (config.max_processes, config.nice, config.start_method) == (1, 1, "zygote")
            assert work.where.submit().get(timeout=30) in gtaskman_manager.pids()

    @pytest.mark.gtaskman(min_processes=4, max_processes=4)
    def test_many(gtaskman_eager):
        assert work.settings().min_processes == 4
"""

INI = """gtaskman =
    start_method = spawn
    nice = 5
    preload = ("json", "csv")
"""


def test_settings(run):
    counts, done = run(SETTINGS, INI)

    assert (done.code, counts.get("passed")) == (0, 5), done.output


@pytest.mark.parametrize(
    ("marker", "ini", "message"),
    [
        ("max_proceses=2", "", "did you mean 'max_processes'?"),
        ("max_processes='two'", "", "max_processes: Expected `int`, got `str`; the value is 'two'"),
        ("2", "", "the marker gtaskman takes settings by name"),
        ("", "gtaskman = max_processes", "the ini option gtaskman takes 'field = value' lines"),
    ],
)
def test_mistakes_are_named(run, marker, ini, message):
    text = f"""
    import pytest

    @pytest.mark.gtaskman({marker})
    def test_it(gtaskman_eager):
        pass
    """

    counts, done = run(text, ini)

    assert (done.code, counts) == (1, counts | {"error": 1}), done.output
    assert message in done.output


def test_it_is_explained_to_whoever_asks(run, tmp_path):
    plugin = ("-p", "gtaskman.testing.plugin")

    assert "@pytest.mark.gtaskman(**settings)" in run("", "", (*plugin, "--markers"))[1].output
    fixtures = run("", "", (*plugin, "--fixtures"))[1].output
    assert "gtaskman_manager" in fixtures and "gtaskman_eager" in fixtures


UNUSED = """
    import sys

    def test_nothing_was_imported():
        assert not {"gevent", "multiprocessing"} & set(sys.modules)
        managers = ("gtaskman.taskmanager", "gtaskman.testing.manager", "gtaskman.testing.stage")
        assert not set(managers) & set(sys.modules)
"""


def test_it_costs_nothing_while_nobody_uses_it(run):
    counts, done = run(UNUSED)

    assert (done.code, counts.get("passed")) == (0, 1), done.output


PATCHED = """
    import gevent
    import gtaskman
    import work

    def test_it(gtaskman_manager):
        ticks = []
        ticker = gevent.spawn(lambda: [ticks.append(gevent.sleep(0.001)) for _ in range(10**6)])
        assert gtaskman.submit(__import__("time").sleep, 0.1).get(timeout=30) is None
        assert len(ticks) > 10
        ticker.kill()
"""


def test_a_patched_run(run, tmp_path):
    (tmp_path / "conftest.py").write_text("from gevent import monkey; monkey.patch_all()\n")

    counts, done = run(PATCHED)

    assert (done.code, counts.get("passed")) == (0, 1), done.output
