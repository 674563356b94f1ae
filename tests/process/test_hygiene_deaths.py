"""Nobody survives whom he works for, however that one dies."""

from __future__ import annotations

import os
import signal
import time

import pytest
from scenarios import hygiene
from worlds import SOON, START_METHODS, alive, every_process, wait_until

SHORTLY = 0.1  # seconds that it should take; not asserted: the machine is shared


def offspring(run):
    """Everything of this run that is neither the application nor gunicorn's own."""
    own = {run.leader, run.pid}
    return {
        each.pid
        for each in run.processes()
        if (each.pid not in own and each.parent != run.leader) or _is_template(run, each)
    }


def _is_template(run, each):
    return run.kind != "gunicorn" and each.parent == run.leader and each.pid != run.leader


def until_gone(pids):
    """Seconds until none of them lives."""
    begin = time.monotonic()
    wait_until(lambda: not any(map(alive, pids)), SOON, f"{pids} are gone", every=0.0005)
    return time.monotonic() - begin


@pytest.fixture
def figure(record_property, request):
    def note(seconds):
        record_property("gone_ms", round(seconds * 1e3, 1))
        late = "" if seconds < SHORTLY else f", more than {SHORTLY * 1e3:.0f} ms"
        print(f"{request.node.name}: gone after {seconds * 1e3:.1f} ms{late}")

    return note


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("when", ["at-work", "starting"])
def test_nothing_survives_the_application(world, start_method, when, figure):
    with world.start(hygiene.workers_at_work, start_method=start_method) as run:
        ready = run.told("ready")
        assert {ready["blocked"], ready["idle"]} <= offspring(run)
        if when == "starting":
            run.release("burst")
            run.told("starting")

        os.kill(run.pid, signal.SIGKILL)
        # Some may have been about to be born: whoever is still found has to go as well.
        figure(until_gone(offspring(run)))

        wait_until(lambda: not offspring(run), SOON, "all are gone")


@pytest.mark.parametrize("start_method", START_METHODS)
def test_nothing_survives_the_application_that_has_just_begun(world, start_method, figure):
    with world.start(hygiene.workers_just_born, start_method=start_method) as run:
        run.told("ready")
        children = offspring(run)

        os.kill(run.pid, signal.SIGKILL)

        figure(until_gone(children))
        wait_until(lambda: not offspring(run), SOON, "all are gone")


@pytest.mark.parametrize("start_method", ["zygote"])
def test_nothing_survives_the_application_while_its_template_imports_it(
    world, start_method, tmp_path, figure
):
    with world.start(
        hygiene.a_template_that_takes_its_time,
        path=str(tmp_path / "importing"),
        start_method=start_method,
    ) as run:
        template = run.told("ready")["importing"]
        assert template in offspring(run)

        os.kill(run.pid, signal.SIGKILL)

        figure(until_gone({template}))
        wait_until(lambda: not offspring(run), SOON, "all are gone")


def test_no_worker_survives_its_template_and_another_one_follows(world, figure):
    with world.start(hygiene.the_template_dies, start_method="zygote") as run:
        ready = run.told("ready")
        assert ready["template"] != run.pid

        os.kill(ready["template"], signal.SIGKILL)

        figure(until_gone({ready["template"], *ready["workers"]}))
        told = run.result()

    assert len(told["crashes"]) == 1 and "lost its worker" in told["crashes"][0]
    assert len(set(told["templates"])) == 2
    assert told["after"] not in told["before"], told
    assert told["doubled"] is True
    assert told["stats"]["failed_tasks"] == 1
    assert told["stats"]["completed_tasks"] == told["stats"]["total_tasks"] - 1


# --- 10: the template ----------------------------------------------------------------------------

FORKS = int(os.environ.get("GTASKMAN_TEST_FORKS", "300"))


def zombies_of(*parents):
    return [each for each in every_process() if each.parent in parents and each.state == "Z"]


def test_the_template_stays_as_it_was(world, record_property):
    with world.start(hygiene.many_forks, count=FORKS, start_method="zygote") as run:
        template = run.told("forked", timeout=60 + FORKS / 10)["template"]
        wait_until(lambda: not zombies_of(run.pid, template), SOON, "no zombies")
        run.release()
        told = run.result()
        looks = run.all_told("look")

    # Each task had a worker of its own, but for a pid that may have come round.
    assert told["workers"] >= FORKS * 0.99
    assert told["hub"] is True
    assert {look["threads"] for look in looks} == {1}
    assert {look["hub"] for look in looks} == {False}
    assert max(look["descriptors"] for look in looks) <= 8 + 2 * 4
    # The first tenth may still touch what was never touched before.
    grown = looks[-1]["resident"] - looks[1]["resident"]
    record_property("grown_kib", grown)
    print(f"{FORKS} forks: the template grew by {grown} KiB")
    assert grown < 1024, looks
