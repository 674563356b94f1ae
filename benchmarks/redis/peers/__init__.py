"""One module per contestant: its tasks as its own users declare them, and a class `Contestant`.

A module is imported by the client that is timed and by the workers that it is served by, both in
the peer's own virtual environment; so it imports that peer, the standard library, and from this
package only what needs nothing else.
"""
