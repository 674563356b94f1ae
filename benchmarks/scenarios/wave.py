"""As many sleeping async tasks as the workers have slots: one wave should take one sleep."""

from statistics import median

from benchmarks.check import same
from benchmarks.measurement import Measurement, timed
from benchmarks.peers import gtaskman
from benchmarks.peers.base import WORKERS


def run(
    contestant: type[gtaskman.Contestant], count: int, seconds: float, waves: int
) -> Measurement:
    expected, calls = [seconds] * count, [(seconds,)] * count
    with contestant(max_jobs_per_process=count // WORKERS) as peer:
        peer.burst(gtaskman.nap_async, [(0.001,)] * count)
        runs = [timed(lambda: peer.burst(gtaskman.nap_async, calls)) for _ in range(waves)]
    checked = sum(same("wave", results, expected) for _, results in runs)
    makespan = median(took for took, _ in runs)
    return Measurement({"makespan_ms": makespan * 1000, "to_ideal": makespan / seconds}, checked)
