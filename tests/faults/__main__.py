"""``python -m tests.faults``: let each system call of a deployment fail once.

``--all`` runs every fault that a clean run gives occasion for (minutes), else a sample of
``--sample`` for each start method, chosen by ``--seed``. ``--call NAME`` keeps those of one call,
``--fault application:dup:EMFILE:3`` runs one. ``--mutant NAME`` puts an old mistake back, and the
exit code is 0 if it is found. Else it is 0 if nothing was wrong.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import random

from tests.faults import mutants, runner
from tests.faults.faults import CALLS, Fault


def main() -> int:
    """Run what the arguments say; gives the exit code."""
    options = _options()
    found = 0
    for start_method in options.start_method or runner.START_METHODS:
        clean = runner.run(start_method)
        print(f"{start_method}: calls {clean.counts}, template {clean.counts_in_template}")
        found += _report(start_method, None, clean, options)
        chosen = _choose(list(runner.faults(start_method, clean)), options)
        found += _run_all(start_method, chosen, options)
    print(f"{found} runs went wrong")
    return int(bool(found) is not bool(options.mutant))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sample", type=int, default=10)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--call", choices=sorted(CALLS))
    parser.add_argument("--fault")
    parser.add_argument("--start-method", action="append", choices=runner.START_METHODS)
    parser.add_argument("--mutant", choices=sorted(mutants.MUTANTS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--verbose", action="store_true")
    return parser.parse_args()


def _choose(every: list[Fault], options: argparse.Namespace) -> list[Fault]:
    if options.fault:
        return [each for each in every if str(each) == options.fault]
    if options.mutant:
        every = [each for each in every if each[:2] == mutants.FOUND_BY[options.mutant]]
    if options.call:
        every = [each for each in every if each.call == options.call]
    if options.all or len(every) <= options.sample:
        return every
    return random.Random(options.seed).sample(every, options.sample)


def _run_all(start_method: str, chosen: list[Fault], options: argparse.Namespace) -> int:
    found = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        runs = {
            pool.submit(runner.run, start_method, each, options.mutant): each for each in chosen
        }
        for done in concurrent.futures.as_completed(runs):
            found += _report(start_method, runs[done], done.result(), options)
    print(f"{start_method}: {len(chosen)} faults")
    return found


def _report(
    start_method: str, fault: Fault | None, run: runner.Run, options: argparse.Namespace
) -> int:
    if run.wrong:
        print(f"{start_method} {fault}: {'; '.join(run.wrong)}", flush=True)
        if options.verbose:
            print(run.output, flush=True)
    return int(bool(run.wrong))


if __name__ == "__main__":
    raise SystemExit(main())
