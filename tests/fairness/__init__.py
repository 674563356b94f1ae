"""Fairness: random mixes of tasks in an embedded manager, and what must hold for each of them.

::

    plan (from the seed) -> play -- submit, cancel, kill -9 --> manager and workers
                              |                                      |
                           verdict <--- handles, numbers, journal <--'

Nothing here depends on speed. Long tasks are held at a gate, which opens only when every short one
has ended: a short task that waits behind a long one while a worker may run it never ends, and the
play finds that when ``limit`` seconds are over. While there are short ones, fillers of the lowest
priority keep the queue from being empty, so that no idle moment repairs what was wrong.

``python -m tests.fairness --seconds 60 --seed 7`` plays one seed after the other; ``mutants`` puts
faults back into the pool, each of which a play must find.
"""
