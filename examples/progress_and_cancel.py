"""Four long computations, watched as they run; each ends in another way.

Run it::

    python examples/progress_and_cancel.py

Every computation is a *sync* task: it has a worker process to itself and never pauses, and still
its progress arrives while it computes, and it can be stopped in the middle of a loop. One counts
the primes below fifty million and completes. The area of the Mandelbrot set is cancelled by the
user half-way. The search for long Collatz chains reaches its time limit and clears its files away
first. The Lyapunov exponents of the logistic map fail at r = 2, with a traceback from the worker.

Nothing is monkey-patched here: gtaskman does not need it.
"""

import math
import tempfile
from pathlib import Path

import gevent
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

import gtaskman

console = Console(highlight=False)


# --- the tasks: each says now and then how far it is ---------------------------------------------


@gtaskman.task
def count_primes(below: int) -> int:
    """How many primes there are, by a sieve that is worked through in a hundred parts."""
    small = [n for n in range(2, math.isqrt(below) + 1) if all(n % k for k in range(2, n // 2 + 1))]
    step, found = below // 100, 0
    for start in range(0, below, step):
        part = bytearray([1]) * step
        for prime in small:
            first = max(prime * prime, -(-start // prime) * prime) - start
            part[first::prime] = bytes(len(range(first, step, prime)))
        found += sum(part) - (2 if start == 0 else 0)  # 0 and 1 are no primes
        report(start + step, below, f"{found:,} primes below {start + step:,}")
    return found


@gtaskman.task
def mandelbrot_area(rows: int) -> float:
    """The area of the Mandelbrot set, by the points of a fine grid that stay bounded."""
    inside, size = 0, 3 / rows
    for row in range(rows):
        for column in range(rows):
            c = z = complex(-2 + column * size, -1.5 + row * size)
            for _ in range(200):
                z = z * z + c
                if abs(z) > 2:
                    break
            else:
                inside += 1
        report(row + 1, rows, f"{inside:,} points inside")
    return inside * size * size


@gtaskman.task(soft_timeout=2, timeout=10)
def collatz_records(below: int, scratch: str) -> int:
    """The number with the longest chain; new records go to a file while it searches.

    At its soft time limit ``SoftTimeout`` is raised in it, wherever it is: ``with`` and
    ``finally`` clean up as for any other exception. It could also catch it and return what it has.
    """
    best = longest = 0
    with tempfile.TemporaryDirectory(dir=scratch) as folder, open(f"{folder}/records", "w") as file:
        for start in range(1, below):
            n, steps = start, 0
            while n != 1:
                n = n // 2 if n % 2 == 0 else 3 * n + 1
                steps += 1
            if steps > longest:
                best, longest = start, steps
                print(start, steps, file=file, flush=True)
            if start % 10_000 == 0:
                report(start, below, f"{best:,} takes {longest} steps")
    return best


@gtaskman.task
def lyapunov(steps: int) -> list[float]:
    """How fast neighbours part under x -> r * x * (1 - x), for r from 1 to 4."""
    exponents = []
    for step in range(steps):
        exponents.append(exponent(1 + 3 * step / steps))
        report(step + 1, steps, f"r = {1 + 3 * step / steps:.2f}")
    return exponents


def exponent(r: float, rounds: int = 20_000) -> float:
    """The exponent for one r."""
    x, total = 0.5, 0.0
    for _ in range(rounds):
        x = r * x * (1 - x)
        total += math.log(abs(r * (1 - 2 * x)))
    return total / rounds


def report(done: int, total: int, message: str) -> None:
    """Tell whoever waits for the task that runs here how far it is."""
    gtaskman.current().progress.update(done, target=total, message=message)


# --- the program ---------------------------------------------------------------------------------


def main() -> None:
    """Start all four, watch them, then show how each has ended."""
    gtaskman.configure(max_processes=4, nice=10)
    with tempfile.TemporaryDirectory() as scratch:
        handles = {
            "primes": count_primes.submit(50_000_000),
            "Mandelbrot": mandelbrot_area.submit(600),
            "Collatz": collatz_records.submit(2_000_000, scratch),
            "Lyapunov": lyapunov.submit(600),
        }
        watch(handles)
        left = len(list(Path(scratch).iterdir()))
    show_endings(handles, left)
    show_traceback(handles["Lyapunov"])


def watch(handles: dict[str, gtaskman.TaskHandle]) -> None:
    """A bar for each task, moved by its reports."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(20), TaskProgressColumn())
    with Progress(*columns, TextColumn("{task.fields[says]}"), console=console) as bars:

        def follow(name: str, handle: gtaskman.TaskHandle) -> None:
            bar = bars.add_task(name, says="")
            for now in handle.progress():
                bars.update(bar, completed=now.completed, total=now.target, says=now.message)
                if name == "Mandelbrot" and now.completed >= now.target / 2:
                    # Here somebody presses a button. Once it has ended, this does nothing more.
                    handle.cancel("the user pressed stop")
            bars.update(bar, says=now.status.value)

        gevent.joinall([gevent.spawn(follow, *item) for item in handles.items()], raise_error=True)


# --- what one sees -------------------------------------------------------------------------------


def show_endings(handles: dict[str, gtaskman.TaskHandle], left: int) -> None:
    """How each has ended: what ``get`` gives, or what it raises."""
    table = Table(title="How they ended", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for heading in ("task", "at", "status", "get()"):
        table.add_column(heading, justify="right" if heading == "at" else "left")
    for name, handle in handles.items():
        report = handle.report
        share = f"{report.completed / report.target:.0%}"
        table.add_row(name, share, report.status.value, outcome(handle))
    console.print(table)
    console.print(f" Files that Collatz has left behind: {left}\n")


def outcome(handle: gtaskman.TaskHandle) -> str:
    """The four ways in which ``get`` ends."""
    try:
        return f"gives {handle.get():,}"
    except gtaskman.TaskCancelled as error:
        return f"raises TaskCancelled: {error.reason}"
    except gtaskman.TaskTimedOut as error:
        return f"raises TaskTimedOut: {error.message}"
    except gtaskman.TaskFailed as error:
        return f"raises TaskFailed: {error.exc_type}: {error.message}"


def show_traceback(handle: gtaskman.TaskHandle) -> None:
    """Where in the worker it happened, and that the exception itself has come along."""
    error = handle.exception
    text = Text(error.traceback.strip())
    console.print(Panel(text, title="Lyapunov: error.traceback", title_align="left"))
    console.print(f" Its __cause__: {error.__cause__!r} (log of 0, as x stays at 1/2)")


if __name__ == "__main__":
    main()
