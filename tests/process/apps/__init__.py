"""Modules of applications that behave in every way when a worker imports them.

Each looks at ``APPLICATION_PID``: in the application itself they are good.
"""
