"""What must hold of a queue's records after every step: ``check(ledger)`` walks all of it.

To be called while nobody changes anything: it reads key after key.
"""

from __future__ import annotations

from typing import Any

from gtaskman.redis.ledger import INDEXES, Ledger

LEVEL = 2**43
STATUS_OF = {index: letter for letter, indexes in INDEXES.items() for index in indexes}


class _Walk:
    """All of one queue, read once, and what is wrong with it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.wrong: list[str] = []
        self.indexes = {name: self.zset(name) for name in STATUS_OF}
        self.sets = {name: self.zset(name) for name in ("rs", "ra", "dl", "tl", "ex")}
        self.parked = {kind: self.zset(f"id{kind}") for kind in "sa"}
        self.owners = self.zset("own")
        self.state = self.hash("st")
        self.keys = self.hash("u")
        self.records = {name: self.hash(f"t:{name}") for name in self.names("t:")}
        self.envelopes = self.names("p:")
        self.ends = self.names("e:")
        self.owned = {name: self.hash(f"o:{name}") for name in self.names("o:")}
        self.cancels = {name: self.members(f"cx:{name}") for name in self.names("cx:")}
        self.waiting = {
            name for name, fields in self.records.items() if fields.get("st") == "W"
        }  # fmt: skip
        self.running = set(self.indexes["run"])

    # --- reading

    def call(self, command: str, key: str, *args: Any) -> Any:
        base = self._ledger.base
        return self._ledger.server.call(base, command, f"{base}:{key}", *args)

    def names(self, kind: str) -> set[str]:
        start = len(self._ledger.base) + 1 + len(kind)
        return {key.decode()[start:] for key in self.call("KEYS", f"{kind}*")}

    def zset(self, key: str) -> dict[str, float]:
        flat = self.call("ZRANGE", key, 0, -1, "WITHSCORES")
        return {k.decode(): float(v) for k, v in zip(flat[::2], flat[1::2], strict=True)}

    def hash(self, key: str) -> dict[str, str]:
        flat = [each.decode(errors="replace") for each in self.call("HGETALL", key)]
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def members(self, key: str) -> set[str]:
        return {each.decode() for each in self.call("SMEMBERS", key)}

    # --- judging

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong.append(what)

    def same(self, one: set[str], other: set[str], what: str) -> None:
        self.expect(one == other, f"{what}: {sorted(one ^ other)}")

    def listing(self) -> None:
        """A record exists if and only if its id is in exactly one index, that of its status."""
        listed: dict[str, str] = {}
        for index, members in self.indexes.items():
            for name, score in members.items():
                self.expect(name not in listed, f"{name} is in {listed.get(name)} and in {index}")
                listed[name] = index
                fields = self.records.get(name, {})
                status = fields.get("st")
                self.expect(status == STATUS_OF[index], f"{name} is {status!r} and in {index}")
                self.expect(float(fields.get("q", -1)) == score, f"{name}: its sequence in {index}")
        self.same(set(listed), set(self.records), "in an index or a record, not both")

    def working_sets(self) -> None:
        """Whatever waits is ready at its place, or delayed, and in nothing else."""
        ready, delayed = {**self.sets["rs"], **self.sets["ra"]}, self.sets["dl"]
        self.same(set(ready) | set(delayed), set(self.indexes["wx"]), "rs, ra and dl against wx")
        self.same(set(ready) & set(delayed), set(), "ready and delayed")
        for kind in "sa":
            for name in self.indexes[f"w{kind}"]:
                fields = self.records.get(name, {})
                self.expect(fields.get("k") == kind, f"{name} is listed as {kind}")
                self.expect("pr" not in fields, f"{name} has a priority and is listed as plain")
                place = fields.get("pl", fields.get("q"))
                self.expect(place == fields.get("q"), f"{name} has a place and is listed as plain")
            for name, score in self.sets[f"r{kind}"].items():
                fields = self.records.get(name, {})
                self.expect(fields.get("k") == kind, f"{name} is ready as {kind}")
                place = int(fields.get("pl", fields.get("q", 0)))
                due = place - int(fields.get("pr", 0)) * LEVEL
                self.expect(score == due, f"{name} is at {score}, not at {due}")

    def moments(self) -> None:
        """Who must start in time waits; who has ended is forgotten one day, and nobody else."""
        for name, score in self.sets["tl"].items():
            self.expect(name in self.waiting, f"{name} must start in time and does not wait")
            last = float(self.records.get(name, {}).get("sb", -1))
            self.expect(last == score, f"{name} must start by {last}, not by {score}")
        for name in self.waiting:
            fields = self.records[name]
            if "sb" in fields and int(fields.get("a", 0)) == 0:
                self.expect(name in self.sets["tl"], f"{name} must start in time: nobody watches")
        finished = {name for index in ("xC", "xF", "xX") for name in self.indexes[index]}
        self.same(set(self.sets["ex"]), finished, "ex against xC, xF and xX")

    def owning(self) -> None:
        """A running task is held by one owner, under the record's token; tokens have risen."""
        holders: dict[str, str] = {}
        last = int(self.state.get("tok", 0))
        for owner, held in self.owned.items():
            self.expect(owner in self.owners, f"{owner} holds tasks and has no lease")
            for name, token in held.items():
                self.expect(name not in holders, f"{name} is held by {owner} and another")
                holders[name] = owner
                fields = self.records.get(name, {})
                self.expect(fields.get("t") == token, f"{name}: {owner} holds another token")
                self.expect(fields.get("ow") == owner, f"{name}: {owner} is not its owner")
        self.same(set(holders), self.running, "held against running")
        for name, fields in self.records.items():
            self.expect(int(fields.get("t", 0)) <= last, f"{name} has a token of the future")
            wanted = fields.get("st") == "P" and "x" in fields
            asked = name in self.cancels.get(fields.get("ow", ""), set())
            self.expect(wanted == asked, f"{name} shall be cancelled: {wanted}, asked: {asked}")
        for owner, names in self.cancels.items():
            self.expect(names <= self.running, f"{owner} shall cancel what does not run")

    def unique_keys(self) -> None:
        """A key belongs to one task that waits or runs, and each that has one holds it."""
        living = self.waiting | self.running
        holding = {
            fields["u"]: name
            for name, fields in self.records.items()
            if name in living and "u" in fields
        }
        self.expect(self.keys == holding, f"unique keys: {self.keys} against {holding}")

    def contents(self) -> None:
        """Envelopes are kept while they are of use, and no end without a record."""
        useful = self.waiting | self.running | set(self.indexes["xF"])
        self.same(self.envelopes, useful, "envelopes against records that need them")
        finished = {name for index in ("xC", "xF", "xX") for name in self.indexes[index]}
        self.expect(self.ends <= finished, f"ends of tasks that go on: {self.ends - finished}")

    def waking(self) -> None:
        """If something is ready, not all that could take it sleep."""
        awake = {owner for owner, score in self.owners.items() if score >= 0}
        for kind in "sa":
            self.expect(set(self.parked[kind]) <= set(self.owners), "somebody unknown is parked")
            ready = len(self.indexes[f"w{kind}"]) + len(self.sets[f"r{kind}"])
            if ready and self.parked[kind] and "paused" not in self.state:
                sleeping = awake <= set(self.parked[kind])
                self.expect(not sleeping, f"{ready} are ready ({kind}) and all owners sleep")


def check(ledger: Ledger) -> list[str]:
    """What is wrong with a queue, in words; nothing, it is to be hoped."""
    walk = _Walk(ledger)
    walk.listing()
    walk.working_sets()
    walk.moments()
    walk.owning()
    walk.unique_keys()
    walk.contents()
    walk.waking()
    return walk.wrong
