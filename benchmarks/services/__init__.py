"""What services cost: coming back after a crash, calls, a hundred of them, a reload under load.

    python -m benchmarks services               # everything, about half a minute
    python -m benchmarks services --quick       # smaller sizes
    python -m benchmarks services --json out.json

There is nobody to compare with: each figure stands beside the target that it has to reach.
"""
