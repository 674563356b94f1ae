"""Integrations with the frameworks and servers that gevent applications stand on.

Each is imported by whoever uses it, and needs what it integrates with to be installed. Nothing
else in gtaskman knows any of them.
"""
