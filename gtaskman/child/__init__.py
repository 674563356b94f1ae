"""Everything that runs after the exec: the template, the worker, and how a task is run there.

Nothing here imports the parent's side, so that a worker holds none of its state by accident.
"""
