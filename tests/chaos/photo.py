"""All that the server keeps of a queue, at one moment, while everybody goes on."""

from __future__ import annotations

from typing import Any

from gtaskman.redis.keys import queue_base
from gtaskman.redis.ledger import INDEXES
from gtaskman.redis.record import Record, record_of
from gtaskman.redis.server import Server

_TAKE = """
local found = {}
for at, key in ipairs(redis.call('KEYS', KEYS[1] .. ':*')) do
  local kind, value = redis.call('TYPE', key)['ok'], ''
  if kind == 'hash' then value = redis.call('HGETALL', key) end
  if kind == 'set' then value = redis.call('SMEMBERS', key) end
  if kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end
  if kind == 'string' then value = redis.call('GET', key) end
  found[at] = {key, value}
end
return found
"""


class Photo:
    """Looks enough like a ``Ledger`` for ``invariants.check`` to walk over it."""

    def __init__(self, server: Server, namespace: str, queue: str) -> None:
        self.base = queue_base(namespace, queue)
        start = len(self.base) + 1
        flat = server.call(self.base, "EVAL", _TAKE, 1, self.base)
        self.keys: dict[str, Any] = {key.decode()[start:]: value for key, value in flat}

    @property
    def server(self) -> Photo:
        """Who answers commands: itself."""
        return self

    def call(self, _base: str, command: str, key: str, *_: Any) -> Any:
        """What the server would have answered to one that reads a whole key."""
        name = key[len(self.base) + 1 :]
        if command == "KEYS":
            start = name.removesuffix("*")
            return [f"{self.base}:{each}".encode() for each in self.keys if each.startswith(start)]
        return self.keys.get(name, [])

    def records(self) -> dict[str, Record]:
        """All records, by id."""
        return {
            name[2:]: record_of(name[2:].encode(), fields, self.keys.get(f"e:{name[2:]}", b""))
            for name, fields in self.keys.items()
            if name.startswith("t:")
        }

    def listed(self) -> dict[str, int]:
        """How many records the indexes have, by status letter."""
        sizes = {name: len(self.keys.get(name, ())) // 2 for name in sum(INDEXES.values(), ())}
        return {letter: sum(map(sizes.__getitem__, names)) for letter, names in INDEXES.items()}

    def parked(self) -> list[str]:
        """The owners that wait to be woken, in the order in which they are."""
        return [each.decode() for each in self.keys.get("ids", [])[::2]]

    def fields(self, name: str) -> set[str]:
        """The names in a hash."""
        return {each.decode() for each in self.keys.get(name, [])[::2]}
