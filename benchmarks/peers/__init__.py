"""One module per contestant, each with a class `Contestant` that is a `Peer`.

They are imported in their own fresh process only, by name, so that none inherits another's
threads, children or hub, and so that a missing package concerns nobody else.
"""
