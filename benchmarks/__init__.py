"""How fast gtaskman is, measured beside what else one could use, in one run.

    python -m benchmarks local                  # everything, under four minutes on two cores
    python -m benchmarks local --quick          # smaller sizes, one round
    python -m benchmarks local --only burst,cpu --json out.json --plot out.png

The way of one number:

    catalog (what, who, how much, which target)
      -> rounds (every contestant once per round, the order rotated)
        -> contestant (a fresh process: one peer, one scenario; checks every result)
      -> summary (medians, ratios, targets)
        -> table, plot, JSON

One quick round only shows that everything works. On a machine that does something else at the
same time, "lowest to highest" says how much of a number to believe.

Absolute rates move by a factor of two between machines and between runs. Ratios are taken
within a round, between neighbours in time, and are what to look at.

A missed target is printed and changes nothing else. A wrong or missing result fails the run.
"""
