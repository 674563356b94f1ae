"""Two web processes, two managers, one Redis server; and one manager is killed in the middle.

Run it, after ``pip install -e '.[embedded]'`` in the repository::

    python examples/web_to_workers/run.py
    python examples/web_to_workers/run.py --url redis://localhost:6379/0     # a server of yours
    python examples/web_to_workers/run.py --save /tmp/pages                  # to look at them

It starts everything and stops everything. The web processes (``web.py``) show sources of the
standard library in colours. Finding the colours is a task (``pages.py``): it goes to the server,
and one of the managers (``gtaskman run pages``) has it done by a worker of its own. Visitors ask
both web processes for two hundred pages. After a third of them ``kill -9`` ends one manager, with
all its workers and whatever they were at. Its visitors do not notice more than a delay: when its
lease is over the server gives its tasks to the other manager. At the end each page is compared
with its file, and a table shows who did what, and which tasks ran a second time.
"""

# ruff: noqa: E402 - patching comes first: this process is visitors, and each is a greenlet.
from gevent import monkey

monkey.patch_all()

import argparse
import collections
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import gevent
from gevent.event import Event
from pages import source_of
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from web import SOURCES

import gtaskman

HERE = Path(__file__).resolve().parent
GTASKMAN = [sys.executable, "-m", "gtaskman"]
VISITORS = 12  # of each web process, at once
LEASE = 4  # seconds of silence after which a manager's tasks go to others; 10 unless one says so
STARTING, ENDING = 60.0, 30.0  # seconds that a process may take
console = Console(highlight=False)


class Visit(NamedTuple):
    """One page that somebody asked for, and what the answer says about it."""

    name: str
    web: str
    seconds: float
    document: str
    task_id: str
    host: str  # where it was made
    attempt: int


def main() -> None:
    """Start all, visit, kill, check, show, stop all."""
    wanted = arguments()
    names = list(SOURCES)[: wanted.files]
    with place(wanted.url) as url, connected(url) as client, team(url) as (webs, managers):
        say(f"The server is {client.address}")
        say(f"Two workers for each manager; a manager's lease is {LEASE} s")
        visits = go_and_see(webs, names, managers[0])
        check(visits)
        stats = gtaskman_says("stats", "--url", url)
        reports = [client.report(visit.task_id) for visit in visits]
        stop([*webs, *managers])
        for visit in visits:
            client.delete(visit.task_id)  # the server may be one that others use

    show_processes([*webs, *managers], visits)
    show_second_attempts(visits)
    console.print(f"[bold]$ gtaskman stats[/bold]\n{stats}", soft_wrap=True)
    show_verdict(names, visits, reports)
    if wanted.save:
        save(visits, wanted.save)


# --- the processes -------------------------------------------------------------------------------


@contextlib.contextmanager
def place(url: str | None) -> Iterator[str]:
    """The URL of the user's server, or of one of our own, which goes with its last user."""
    namespace = "namespace=web-to-workers"
    if url is not None:
        yield url if "namespace=" in url else f"{url}{'&' if '?' in url else '?'}{namespace}"
        return
    with tempfile.TemporaryDirectory() as directory:
        yield f"embedded:{directory}?{namespace}"
        with gevent.Timeout(ENDING):
            while os.path.exists(f"{directory}/server.sock"):
                gevent.sleep(0.01)


@contextlib.contextmanager
def connected(url: str) -> Iterator[gtaskman.Client]:
    """A client, from which we hear at once if the server is not to be had."""
    try:
        with gtaskman.Client(url, patience=5) as client:
            client.count()
            yield client
    except gtaskman.GTaskmanError as error:
        sys.exit(f"{error}")


@contextlib.contextmanager
def team(url: str) -> Iterator[tuple[list["Process"], list["Process"]]]:
    """Two web processes and two managers, all of them at work."""
    web = [sys.executable, "web.py", "--port", "0"]
    manager = [*GTASKMAN, "run", "pages", "--min", "2", "--max", "2", "--lease", str(LEASE)]
    team: list[Process] = []
    try:
        for name in ("web-1", "web-2"):
            team.append(Process(name, web, "http://", url))
        for name in ("manager-1", "manager-2"):
            team.append(Process(name, manager, "ready", url))
        for each in team:
            each.wait_ready()
        yield team[:2], team[2:]
    finally:
        for each in team:
            each.clear()


class Process:
    """One of the four. ``end`` says how it came to its end."""

    def __init__(self, name: str, command: list[str], ready: str, url: str) -> None:
        self.name = name
        self.end = ""
        self.ready = ""  # what it says when it serves: of a web process, its address
        self._ready = ready
        self._news = Event()
        self._said: collections.deque[str] = collections.deque(maxlen=100)
        self._popen = subprocess.Popen(
            command,
            cwd=HERE,
            env=os.environ | {"GTASKMAN_URL": url, "HOST_NAME": name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,  # a Ctrl-C is for us: we stop it
        )
        self.pid = self._popen.pid
        self._reader = gevent.spawn(self._read)

    def _read(self) -> None:
        for line in self._popen.stdout:
            self._said.append(line)
            if not self.ready and self._ready in line:
                self.ready = line.strip()
                self._news.set()
        self._news.set()  # it has ended

    def wait_ready(self) -> None:
        """Wait until it serves."""
        self._news.wait(STARTING)
        if not self.ready:
            sys.exit(f"{self.name} does not come up:\n{self.told}")

    @property
    def told(self) -> str:
        """The last that it has said."""
        return "".join(self._said)

    def kill(self, when: str) -> None:
        """As the kernel does when memory is short: it cannot say or save anything."""
        os.kill(self.pid, signal.SIGKILL)
        self.end = f"kill -9 {when}"

    def terminate(self) -> None:
        """Ask it to end in good order."""
        if self._popen.poll() is None:
            self._popen.terminate()

    def wait(self) -> None:
        """Wait for its end."""
        code = self._popen.wait(ENDING)
        self.end = self.end or f"TERM, exit code {code}"

    def clear(self) -> None:
        """Whatever has happened, nothing of it is left."""
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait()
        self._popen.kill()
        self._popen.wait()
        self._reader.join(ENDING)


def stop(processes: list[Process]) -> None:
    """All at once."""
    for each in processes:
        each.terminate()
    for each in processes:
        each.wait()


def gtaskman_says(*words: str) -> str:
    """What the command line says."""
    done = subprocess.run([*GTASKMAN, *words], cwd=HERE, capture_output=True, text=True)
    return done.stdout or sys.exit(done.stderr)


# --- the visitors --------------------------------------------------------------------------------


def go_and_see(webs: list[Process], names: list[str], victim: Process) -> list[Visit]:
    """Ask for all pages, and kill the victim after a third of them."""
    visits: list[Visit] = []
    left = iter(names)
    columns = (TextColumn("pages"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("pages", total=len(names))

        def visitor(web: Process) -> None:
            for name in left:
                visits.append(visit(web, name))
                progress.advance(bar)
                if len(visits) == len(names) // 3:
                    victim.kill(f"after {len(visits)} pages")
                    progress.console.print(f" {victim.name}, pid {victim.pid}: {victim.end}")

        everybody = [gevent.spawn(visitor, web) for _ in range(VISITORS) for web in webs]
        try:
            gevent.joinall(everybody, raise_error=True)
        finally:
            gevent.killall(everybody)
    return visits


def visit(web: Process, name: str) -> Visit:
    """Ask for one page."""
    begin = time.monotonic()
    try:
        with urllib.request.urlopen(f"{web.ready}/{name}", timeout=120) as response:
            document, about = response.read().decode(), response.headers
    except urllib.error.HTTPError as error:
        sys.exit(f"{web.name} answers {error.code} for {name}: {error.read().decode()}\n{web.told}")
    seconds = time.monotonic() - begin
    made_by = about["X-Task"], about["X-Host"], int(about["X-Attempt"])
    return Visit(name, web.name, seconds, document, *made_by)


def check(visits: list[Visit]) -> None:
    """A page without its colours is the file: if it is not, we say so and end."""
    for each in visits:
        if source_of(each.document).encode() != SOURCES[each.name].read_bytes():
            sys.exit(f"the page of {each.name}, made by {each.host}, is not what is in the file")


def save(visits: list[Visit], folder: Path) -> None:
    """Write the pages, to be looked at."""
    for each in visits:
        path = folder / f"{each.name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(each.document.encode())
    say(f"The pages are in {folder}.\n")


# --- what one sees -------------------------------------------------------------------------------


def show_processes(processes: list[Process], visits: list[Visit]) -> None:
    """Who has answered, who has made the pages, and how each came to its end."""
    answered = collections.Counter(each.web for each in visits)
    made = collections.Counter(each.host for each in visits)
    again = collections.Counter(each.host for each in visits if each.attempt > 1)
    table = new_table("Who did what", "process")
    for heading in ("pid", "answered", "made", "of these again"):
        table.add_column(heading, justify="right")
    table.add_column("its end")
    for each in processes:
        if each.name in answered:
            counts = [f"{answered[each.name]}", "", ""]
        else:
            counts = ["", f"{made[each.name]}", f"{again[each.name]}"]
        table.add_row(each.name, f"{each.pid}", *counts, each.end)
    console.print(table)


def show_second_attempts(visits: list[Visit]) -> None:
    """What the killed manager had in its hands."""
    table = new_table("What was with the manager that was killed, and ran again", "page")
    table.add_column("attempt", justify="right")
    table.add_column("made by")
    table.add_column("the visitor waited", justify="right")
    for each in sorted(visits):
        if each.attempt > 1:
            table.add_row(each.name, f"{each.attempt}", each.host, f"{each.seconds:.1f} s")
    console.print(table)


def show_verdict(
    names: list[str], visits: list[Visit], reports: list[gtaskman.Report | None]
) -> None:
    """That nothing is missing, and that the server and the answers agree."""
    completed = sum(
        report is not None
        and report.status is gtaskman.TaskStatus.COMPLETED
        and report.attempt == visit.attempt
        for report, visit in zip(reports, visits, strict=True)
    )
    missing = set(names) - {visit.name for visit in visits}
    say(f"Asked for {len(names)} pages, answered {len(visits)}, missing {len(missing)}.")
    say(f"Compared with their files: {len(visits)}, all the same.")
    say(f"On the server: {completed} tasks completed, at the same attempts.")
    if missing or completed != len(names):
        sys.exit(1)


def say(text: str) -> None:
    """A line of text."""
    console.print(f" {text}")


def new_table(title: str, name: str) -> Table:
    """A table whose rows begin with a name."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column(name)
    return table


def arguments() -> argparse.Namespace:
    """What the user wants."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", help="a server of yours (default: an embedded one)")
    parser.add_argument("--files", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="where to write the pages")
    wanted = parser.parse_args()
    if wanted.files < 60:
        parser.error("--files: 60 at least, or nobody is busy when the manager is killed")
    return wanted


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
