"""Chaos: real senders, managers and a server, to all of which the worst happens, and a judge.

::

    director (scenarios, cast) -- kill -9, SIGSTOP, restart --> senders, managers, workers, server
                                                                    |            |
    verdict <------------- journal: what each of them did, and when <            |
       ^------------------ photo: all that the server keeps, at one moment ------+

``python -m tests.chaos --seconds 60 --seed 7`` plays all scenarios; what is random follows from
the seed, as far as the machine lets it. A run leaves its journal behind only when it has found
something. ``faults`` has the switches inside the processes: replies that get lost, and mutants of
the scripts, each of which the judge must find out.
"""
