"""The records of a queue, on real servers: each script, once and as after a lost reply."""

from __future__ import annotations

import itertools
import random
import re
import time

import gevent
import pytest
from entries import LEASE, TwiceServer, entry, let_pass
from invariants import check
from servers import Cluster
from worlds import wait_until

from gtaskman import ConfigurationError
from gtaskman.errors import ServerError
from gtaskman.redis.keys import client_channel, owner_channel
from gtaskman.redis.ledger import BATCH, DONE, GONE, REPLAY, STALE, Ledger, Settlement
from gtaskman.redis.record import body_of, parts

SOON = 10.0
ACCEPTED = {DONE, REPLAY}  # in a test where each script may run twice
requests = (f"request{number}" for number in itertools.count(1))


def enqueue(ledger, *ids, **values):
    """Enqueues one after the other; gives the answers."""
    return ledger.enqueue([entry(each, **values) for each in ids], next(requests))


def begin(ledger, *owners):
    for owner in owners or ("me",):
        assert not ledger.beat(owner, LEASE, first=True).lost


def turn(ledger, *settlements, owner="me", sync=0, asyncs=0, request=None):
    return ledger.turn(owner, request or next(requests), settlements, sync, asyncs, LEASE)


def claim(ledger, sync=BATCH, asyncs=BATCH, owner="me"):
    """What an owner gets, by id."""
    claims = turn(ledger, owner=owner, sync=sync, asyncs=asyncs).claims
    return {each.id: each for each in claims}


def settle(ledger, claimed, outcome, *, owner="me", **values):
    """Settles one claim; gives the verdict."""
    settlement = Settlement(claimed.id, claimed.token, outcome, **values)
    return turn(ledger, settlement, owner=owner).verdicts[0]


def run(ledger, *ids, **values):
    """Enqueues and claims, by the owner ``me``; gives the claims in order."""
    begin(ledger)
    enqueue(ledger, *ids, **values)
    claimed = claim(ledger)
    return [claimed[each] for each in ids]


def status(ledger, task_id):
    record = ledger.record(task_id)
    return record and record.status


def die(ledger, owner):
    """The owner's lease ends, others live on, and one of them finds out."""
    begin(ledger, "another")
    let_pass(ledger, LEASE * 0.7)
    ledger.beat("another", LEASE)
    let_pass(ledger, LEASE * 0.7)
    ledger.beat("another", LEASE)
    assert ledger.beat(owner, LEASE).lost


class Ear:
    """Hears a channel."""

    def __init__(self, ledger, channel):
        self.heard = []
        self._known = set() if isinstance(ledger.server, TwiceServer) else None
        self._subscription = ledger.server.subscribe(ledger.base, channel, self._hear)

    def _hear(self, message):
        if self._known is not None:  # each may come twice, the second one late
            if message in self._known:
                return
            self._known.add(message)
        self.heard.append(message)

    def wait_for(self, *messages):
        wait_until(lambda: len(self.heard) >= len(messages), SOON, f"hear {messages}")
        assert self.heard == list(messages)
        self.heard.clear()

    def wait_for_one(self):
        wait_until(lambda: self.heard, SOON, "hear anything")
        self.heard.clear()


# --- enqueue


def test_what_is_enqueued_is_handed_out_in_order_each_kind_for_itself(ledger):
    begin(ledger)
    assert enqueue(ledger, "a", "b", "c") == [None] * 3
    assert enqueue(ledger, "d", "e", kind="a") == [None] * 2
    assert list(claim(ledger, sync=2, asyncs=1)) == ["a", "b", "d"]
    assert list(claim(ledger, sync=9, asyncs=0)) == ["c"]
    made = claim(ledger)["e"]
    assert (made.attempt, made.losses, made.envelope) == (1, 0, b"envelope of e")


def test_nothing_is_queued_twice(ledger):
    # given a task that waits, one that runs, one that has ended
    claimed = run(ledger, "running", "ended")
    settle(ledger, claimed[1], "C")
    enqueue(ledger, "waiting")
    # expect the first two to be known, the third to begin anew
    assert enqueue(ledger, "waiting", "running", "ended") == ["waiting", "running", None]
    assert status(ledger, "ended") == "W"
    assert ledger.counts()[:8] == (2, 2, 0, 0, 1, 0, 0, 0)
    assert enqueue(ledger, "twin", "twin") == [None, "twin"]


def test_a_request_that_is_sent_again_is_answered_again(ledger):
    begin(ledger)
    batch = [entry("a"), entry("b", unique="key"), entry("c", unique="key"), entry("a")]
    assert ledger.enqueue(batch, "once") == [None, None, "b", "a"]
    assert ledger.enqueue(batch, "once") == [None, None, "b", "a"]
    # even when they run, or have ended
    claimed = claim(ledger)
    assert ledger.enqueue(batch[:2], "once") == [None, None]
    settle(ledger, claimed["a"], "C", end=b"end")
    assert ledger.enqueue(batch[:2], "once") == [None, None]
    assert (status(ledger, "a"), status(ledger, "b")) == ("C", "P")
    assert ledger.counts().total_queued == 2


def test_many_are_enqueued_in_parts(ledger):
    names = [f"n{at}" for at in range(3 * BATCH + 5)]
    assert enqueue(ledger, *names) == [None] * len(names)
    assert [each.id for each in ledger.find(limit=1000)] == names
    large = [entry(f"large{at}", envelope=bytes(3_000_000)) for at in range(4)]
    assert ledger.enqueue(large, "large") == [None] * 4
    assert ledger.enqueue(large, "large") == [None] * 4
    assert ledger.enqueue([], "none") == []


@pytest.mark.parametrize("key", ["k", "long " * 50])
def test_a_unique_key_has_one_holder_until_it_ends(ledger, key):
    begin(ledger)
    assert enqueue(ledger, "first", unique=key) == [None]
    assert enqueue(ledger, "second", unique=key) == ["first"]
    assert enqueue(ledger, "other", unique="other") == [None]
    claimed = claim(ledger)
    assert enqueue(ledger, "second", unique=key) == ["first"]
    assert settle(ledger, claimed["first"], "R", delay=100) in ACCEPTED
    assert enqueue(ledger, "second", unique=key) == ["first"]
    assert ledger.cancel("first") == "X"
    assert enqueue(ledger, "second", unique=key) == [None]
    # a refused one leaves what was kept under its id
    assert enqueue(ledger, "first", unique=key) == ["second"]
    assert status(ledger, "first") == "X"


# --- who goes first


def test_the_higher_priority_goes_first_then_who_came_first(ledger):
    begin(ledger)
    priorities = {"a": 0, "b": -100, "c": 5, "d": 0, "e": 100, "f": 5, "g": -1}
    for name, priority in priorities.items():
        enqueue(ledger, name, priority=priority, kind="a" if name in "be" else "s")
    assert list(claim(ledger, sync=3, asyncs=1)) == ["e", "c", "f", "a"]
    assert list(claim(ledger)) == ["d", "g", "b"]


def test_a_refunded_task_is_back_at_its_place_and_not_counted(ledger):
    one, two = run(ledger, "one", "two")
    enqueue(ledger, "three")
    assert settle(ledger, two, "B") in ACCEPTED
    assert settle(ledger, one, "B") in ACCEPTED
    claimed = claim(ledger)
    assert list(claimed) == ["one", "two", "three"]
    assert [each.attempt for each in claimed.values()] == [1, 1, 1]
    assert claimed["one"].token > two.token


def test_a_retried_task_goes_after_all_others_of_its_priority(ledger):
    one, urgent = run(ledger, "one"), None
    urgent = run(ledger, "urgent", priority=5)
    enqueue(ledger, "two")
    assert settle(ledger, one[0], "R") in ACCEPTED
    assert settle(ledger, urgent[0], "R") in ACCEPTED
    enqueue(ledger, "three")
    claimed = claim(ledger)
    assert list(claimed) == ["urgent", "two", "one", "three"]
    assert claimed["one"].attempt == 2
    # refunded, it is back at that place
    settle(ledger, claimed["one"], "B")
    settle(ledger, claimed["three"], "B")
    assert list(claim(ledger)) == ["one", "three"]
    # and yet it was submitted first
    assert [each.id for each in ledger.find()] == ["one", "urgent", "two", "three"]


def test_a_delayed_retry_goes_after_those_that_came_meanwhile(ledger):
    (one,) = run(ledger, "one")
    assert settle(ledger, one, "R", delay=30) in ACCEPTED
    enqueue(ledger, "two")
    assert ledger.counts()[:4] == (2, 1, 0, 1)
    let_pass(ledger, 31)
    enqueue(ledger, "three")
    ledger.beat("me", LEASE)
    enqueue(ledger, "four")
    assert list(claim(ledger)) == ["two", "three", "one", "four"]


@pytest.mark.parametrize("how", ["delay", "eta"])
@pytest.mark.parametrize("values", [{}, {"priority": 3}])
def test_a_delayed_task_waits_until_it_is_due(ledger, how, values):
    begin(ledger)
    enqueue(ledger, "late", **{how: 30 if how == "delay" else time.time() + 30}, **values)
    taken = turn(ledger, sync=9)
    assert taken.claims == []
    assert 20 < taken.next_due <= 31
    assert 20 < ledger.beat("me", LEASE).next_due <= 31
    assert (ledger.counts().waiting, ledger.counts().delayed) == (1, 1)
    let_pass(ledger, 31)
    assert list(claim(ledger)) == ["late"]
    assert turn(ledger).next_due is None


def test_a_delay_that_is_over_is_none(ledger):
    begin(ledger)
    enqueue(ledger, "late", eta=time.time() - 100)
    assert list(claim(ledger)) == ["late"]


def test_a_beat_makes_ready_what_is_due(ledger):
    begin(ledger)
    enqueue(ledger, "late", delay=5, kind="a")
    let_pass(ledger, 6)
    ledger.beat("me", LEASE)
    assert ledger.counts()[:4] == (1, 0, 1, 0)


def test_whoever_claims_hears_how_long_is_left_for_the_start(ledger):
    begin(ledger)
    enqueue(ledger, "hurried", ttl=30)
    enqueue(ledger, "patient")
    let_pass(ledger, 10)
    request = next(requests)
    taken = turn(ledger, sync=9, request=request).claims
    assert [each.id for each in taken] == ["hurried", "patient"]
    assert 15 < taken[0].start_within <= 21
    assert taken[1].start_within is None
    assert [each.id for each in turn(ledger, sync=9, request=request).claims] == [
        "hurried",
        "patient",
    ]
    assert settle(ledger, taken[0], "R") in ACCEPTED
    assert claim(ledger)["hurried"].start_within is None  # it has started in time


# --- turns


def test_a_turn_that_is_sent_again_gives_the_same_batch(single):
    begin(single)
    enqueue(single, "a", "b", "c", "d")
    first = turn(single, sync=3, request="mine")
    assert turn(single, sync=3, request="mine") == first
    # but for what has ended since, or was lost
    assert settle(single, first.claims[0], "C") == DONE
    again = turn(single, sync=3, request="mine")
    assert again.claims == first.claims[1:]
    assert [each.id for each in turn(single, sync=3, request="another").claims] == ["d"]


def test_it_settles_and_claims_at_once(ledger):
    one, two = run(ledger, "one", "two")
    enqueue(ledger, "three")
    both = [
        Settlement(one.id, one.token, "C", b"end", b"result"),
        Settlement(two.id, two.token, "R"),
    ]
    taken = turn(ledger, *both, sync=9)
    assert set(taken.verdicts) <= ACCEPTED
    assert [each.id for each in taken.claims] == ["three", "two"]
    record = ledger.record("one")
    assert (record.status, record.end, record.result) == ("C", b"end", b"result")
    assert record.finished >= record.started >= record.created
    assert abs(record.created - time.time()) < 60


def test_a_verdict_says_what_became_of_a_settlement(single):
    one, two = run(single, "one", "two")
    assert settle(single, one, "C") == DONE
    assert settle(single, one, "C") == REPLAY
    assert settle(single, one, "F", end=b"late") == REPLAY
    assert status(single, "one") == "C"
    assert settle(single, two._replace(token=two.token + 1), "C") == STALE
    assert settle(single, two, "C", owner="somebody") == STALE
    assert settle(single, two._replace(id="nobody"), "C") == GONE
    assert settle(single, two, "R") == DONE
    assert settle(single, two, "R") == REPLAY
    again = claim(single)["two"]
    assert settle(single, two, "C") in (REPLAY, STALE)
    twice = [Settlement("two", again.token, "C"), Settlement("two", again.token, "F")]
    assert turn(single, *twice).verdicts == [DONE, REPLAY]
    assert status(single, "two") == "C"


def test_a_batch_is_bounded_and_leaves_room_for_either_kind(ledger):
    begin(ledger)
    for kind in "sa":
        enqueue(ledger, *[f"{kind}{at}" for at in range(BATCH + 10)], kind=kind)
    taken = turn(ledger, sync=500, asyncs=500)
    assert [sum(each.id[0] == kind for each in taken.claims) for kind in "sa"] == [64, 64]
    assert (taken.left_sync, taken.left_async) == (74, 74)
    many = claim(ledger, sync=0, asyncs=500)
    assert len(many) == 74
    settled = [Settlement(each.id, each.token, "C") for each in (*taken.claims, *many.values())]
    assert set(turn(ledger, *settled, sync=1).verdicts) <= ACCEPTED
    assert ledger.counts().completed == len(settled) > BATCH


def test_an_owner_that_is_not_known_gets_nothing(ledger):
    enqueue(ledger, "a")
    taken = turn(ledger, owner="nobody", sync=1)
    assert (taken.lost, taken.claims) == (True, [])
    assert ledger.beat("nobody", LEASE).lost


def test_tokens_rise_though_the_clock_goes_back(ledger):
    (first,) = run(ledger, "a")
    future = first.token + 10**12
    ledger.server.call(ledger.base, "HSET", f"{ledger.base}:st", "tok", future)
    settle(ledger, first, "B")
    assert claim(ledger)["a"].token == future + 1


# --- owners


def test_what_a_dead_owner_ran_goes_back_to_its_place(ledger):
    one, two = run(ledger, "one", "two")
    enqueue(ledger, "three")
    die(ledger, "me")
    assert ledger.owned("me") == {}
    claimed = claim(ledger, owner="another")
    assert list(claimed) == ["one", "two", "three"]
    assert [(each.attempt, each.losses) for each in claimed.values()] == [(2, 1), (2, 1), (1, 0)]
    # if the dead one comes back, expect it to be refused
    assert turn(ledger, sync=9).lost
    assert settle(ledger, one, "C") == STALE
    assert ledger.beat("me", LEASE, first=True).lost is False  # as anybody new
    assert settle(ledger, two, "C") == STALE
    assert ledger.owned("another") == {each.id: each.token for each in claimed.values()}


def test_what_was_lost_beside_poison_is_not_given_up_with_it(ledger):
    begin(ledger)
    enqueue(ledger, *"abcdef", max_losses=3)
    enqueue(ledger, "bad", max_losses=3)
    for number in range(12):
        owner = f"owner{number}"
        begin(ledger, owner)
        held = claim(ledger, owner=owner)
        if "bad" in held:
            die(ledger, owner)
        for each in held.values():
            if "bad" not in held:
                assert settle(ledger, each, "C", owner=owner) in ACCEPTED
        let_pass(ledger, 0.1)
    assert ledger.record("bad").why == "poison"
    assert [each.id for each in ledger.find("F")] == ["bad"]
    assert len(ledger.find("C")) == 6


def test_what_was_lost_is_claimed_in_groups(ledger):
    """So that a manager that held many tasks is replaced soon, and poison harms a few at most."""
    ids = [f"t{number}" for number in range(40)]
    run(ledger, *ids, max_losses=3)
    enqueue(ledger, "new")
    die(ledger, "me")
    groups = [claim(ledger, owner="another")]
    assert list(groups[0]) == [*ids[:16], "new"]
    assert claim(ledger, owner="another") == {}
    for _ in range(3):
        let_pass(ledger, 2.1)
        groups.append(claim(ledger, owner="another"))
        ledger.beat("another", LEASE)
    assert [len(group) for group in groups] == [17, 16, 8, 0]


def test_what_may_be_lost_once_more_is_claimed_alone(ledger):
    ids = [f"t{number}" for number in range(4)]
    run(ledger, *ids, max_losses=2)
    die(ledger, "me")
    seen = []
    for _ in ids:
        (each,) = claim(ledger, owner="another").values()
        let_pass(ledger, 0.1)
        assert claim(ledger, owner="another") == {}, "one that may kill runs"
        seen.append(each.id)
        if each.id != "t1":
            assert settle(ledger, each, "C", owner="another") in ACCEPTED
        let_pass(ledger, 2.1)  # one that runs on has not killed its owner by then
    assert sorted(seen) == ids


def test_what_may_be_lost_once_more_waits_for_the_others_that_were_lost(ledger):
    run(ledger, "last", max_losses=2)
    others = [f"t{number}" for number in range(3)]
    run(ledger, *others, max_losses=9)
    die(ledger, "me")
    assert list(claim(ledger, owner="another")) == ["last"]
    let_pass(ledger, 2.1)
    assert list(claim(ledger, owner="another")) == others


def test_each_owner_keeps_a_lease_of_its_own_length(ledger):
    begin(ledger, "long")
    assert not ledger.beat("short", LEASE / 20, first=True).lost
    # an outage that is shorter than the long lease, after which its owner is the first to beat
    assert not ledger.beat("long", LEASE).lost
    let_pass(ledger, LEASE / 5, served=False)
    assert not ledger.beat("long", LEASE).lost
    assert not ledger.beat("short", LEASE / 20).lost
    # one that is renewed so and never beats again is dead all the same
    for _ in range(4):
        let_pass(ledger, LEASE / 5, served=False)
        ledger.beat("long", LEASE)
    assert ledger.beat("short", LEASE / 20).lost


def test_a_short_lease_cuts_no_long_one(ledger):
    begin(ledger, "long")
    let_pass(ledger, LEASE / 5, served=False)
    assert not ledger.beat("short", LEASE / 20, first=True).lost
    let_pass(ledger, LEASE / 10)
    ledger.beat("short", LEASE / 20)
    assert not ledger.beat("long", LEASE).lost


def test_a_running_task_without_a_record_disturbs_no_beat(ledger):
    run(ledger, "a", "b")
    ledger.cancel("a", "enough")
    ledger.server.call(ledger.base, "DEL", f"{ledger.base}:t:a")
    assert ledger.beat("me", LEASE).cancels == []
    ledger.server.call(ledger.base, "HDEL", f"{ledger.base}:o:me", "a")
    ledger.server.call(ledger.base, "ZREM", f"{ledger.base}:run", "a")
    ledger.server.call(ledger.base, "DEL", f"{ledger.base}:p:a")


def test_a_refund_may_wait_and_keeps_its_place(ledger):
    (first,) = run(ledger, "a")
    enqueue(ledger, "b")
    assert settle(ledger, first, "B", delay=5) in ACCEPTED
    assert ledger.counts().delayed == 1
    let_pass(ledger, 6)
    assert list(claim(ledger)) == ["a", "b"]
    assert ledger.record("a").attempt == 1


def test_a_task_that_takes_too_many_owners_with_it_is_poison(ledger):
    begin(ledger)
    enqueue(ledger, "bad", max_losses=2)
    for number in range(2):
        owner = f"owner{number}"
        begin(ledger, owner)
        assert claim(ledger, owner=owner)["bad"].losses == number
        die(ledger, owner)
    record = ledger.record("bad")
    assert (record.status, record.why, record.losses) == ("F", "poison", 2)


def test_a_loss_that_the_owner_survives_is_counted_too(ledger):
    (bad,) = run(ledger, "bad", max_losses=2)
    assert settle(ledger, bad, "L") in ACCEPTED
    again = claim(ledger)["bad"]
    assert (again.attempt, again.losses) == (2, 1)
    die(ledger, "me")
    assert ledger.record("bad").why == "poison"


def test_a_task_that_may_run_once_is_lost_with_its_owner(ledger):
    run(ledger, "vowed", once=True)
    plain, late = run(ledger, "plain", "late")
    assert ledger.vow("me", "late", late.token)
    assert not ledger.vow("me", "plain", plain.token + 1)
    assert not ledger.vow("another", "plain", plain.token)
    die(ledger, "me")
    assert [(each.status, each.why) for each in ledger.find("F")] == [("F", "lost")] * 2
    assert list(claim(ledger, owner="another")) == ["plain"]


def test_a_task_that_may_run_once_is_not_retried_but_may_be_refunded(ledger):
    one, two = run(ledger, "one", "two", once=True)
    assert settle(ledger, one, "R", delay=5, end=b"end") in ACCEPTED
    assert settle(ledger, two, "B") in ACCEPTED
    assert (status(ledger, "one"), status(ledger, "two")) == ("F", "W")
    assert ledger.record("one").end == b"end"


def test_many_are_reaped_in_steps(single):
    begin(single)
    names = [f"n{at}" for at in range(600)]
    enqueue(single, *names)
    while claim(single):
        pass
    die(single, "me")
    while single.counts().processing:
        assert 0 < single.beat("another", LEASE).reaped <= 256
        assert check(single) == []
    assert [each.id for each in single.find("W", limit=1000)] == names
    assert single.counts().ready_sync == 600


def test_while_the_server_is_away_nobody_loses_a_lease(ledger):
    begin(ledger, "me", "another")
    enqueue(ledger, "mine")
    mine = claim(ledger)["mine"]
    ledger.beat("another", LEASE)
    # given that the server was away for long
    let_pass(ledger, 3 * LEASE, served=False)
    # if one of the owners comes back first
    ledger.beat("another", LEASE)
    # expect the other to have kept its task
    assert not ledger.beat("me", LEASE).lost
    assert settle(ledger, mine, "C") in ACCEPTED


def test_an_owner_that_beats_or_turns_keeps_its_lease(ledger):
    begin(ledger, "beating", "turning", "watching")
    for _ in range(5):
        let_pass(ledger, LEASE * 0.6)
        assert not ledger.beat("beating", LEASE).lost
        assert not turn(ledger, owner="turning").lost
        assert not ledger.beat("watching", LEASE).lost


@pytest.mark.parametrize("at_once", [True, False])
def test_an_owner_that_resigns_gives_back_all_that_it_holds(ledger, at_once):
    count = 3 if at_once else 600
    begin(ledger)
    enqueue(ledger, *[f"n{at}" for at in range(count)])
    enqueue(ledger, "vowed", once=True)
    enqueue(ledger, "unwanted")
    while claim(ledger):
        pass
    ledger.cancel("unwanted", "enough")
    ledger.resign("me")
    assert ledger.owned("me") == {}
    assert ledger.counts()[:8] == (count, count, 0, 0, 0, 0, 1, 1)
    assert ledger.record("vowed").why == "lost"
    assert ledger.record("n0").attempt == 0
    assert ledger.beat("me", LEASE).lost
    ledger.resign("me")
    ledger.resign("nobody")
    keys = ledger.server.call(ledger.base, "KEYS", f"{ledger.base}:*:me")
    assert keys == []


def test_a_beat_says_what_its_owner_holds(ledger):
    begin(ledger)
    assert ledger.beat("me", LEASE).owned == 0
    claimed = run(ledger, "a", "b")
    assert ledger.beat("me", LEASE).owned == 2
    assert ledger.owned("me") == {each.id: each.token for each in claimed}
    settle(ledger, claimed[0], "C")
    assert ledger.beat("me", LEASE).owned == 1


# --- in time


def test_what_has_not_started_in_time_fails(ledger):
    begin(ledger)
    enqueue(ledger, "late", "delayed", ttl=5)
    enqueue(ledger, "urgent", ttl=5, priority=2, kind="a")
    enqueue(ledger, "later", ttl=60, delay=20)
    let_pass(ledger, 6)
    assert claim(ledger) == {}
    assert {each.id: each.why for each in ledger.find("F")} == dict.fromkeys(
        ["late", "delayed", "urgent"], "expired"
    )
    assert ledger.record("late").ttl == 5
    # it is counted from when it is due
    let_pass(ledger, 50)
    assert list(claim(ledger)) == ["later"]


def test_what_is_late_is_found_by_a_beat_as_well(ledger):
    begin(ledger)
    names = [f"n{at}" for at in range(BATCH + 20)]
    enqueue(ledger, *names, ttl=5)
    let_pass(ledger, 6)
    assert claim(ledger) == {}, "though not all are known to be late"
    ledger.beat("me", LEASE)
    ledger.beat("me", LEASE)
    assert ledger.counts().failed == len(names)


def test_what_has_started_in_time_is_not_late_any_more(ledger):
    one, two, _ = run(ledger, "one", "two", "three", ttl=5)
    assert settle(ledger, one, "R", delay=1) in ACCEPTED
    settle(ledger, two, "B")
    let_pass(ledger, 6)
    ledger.beat("me", LEASE)
    # expect the refunded one to be late, as it never ran
    assert (status(ledger, "two"), ledger.record("two").why) == ("F", "expired")
    assert list(claim(ledger)) == ["one"]
    die(ledger, "me")
    assert status(ledger, "three") == "W"


# --- cancel


def test_a_waiting_task_is_cancelled_at_once(ledger):
    begin(ledger)
    enqueue(ledger, "plain")
    enqueue(ledger, "urgent", priority=1, kind="a")
    enqueue(ledger, "late", delay=50, ttl=5)
    for name in ("plain", "urgent", "late"):
        assert ledger.cancel(name, "enough") == "X"
        record = ledger.record(name)
        assert (record.status, record.why) == ("X", "enough")
    assert ledger.counts()[:8] == (0, 0, 0, 0, 0, 0, 0, 3)
    assert claim(ledger) == {}
    assert ledger.cancel("nobody") is None


@pytest.mark.parametrize(
    ("outcome", "after"), [("C", "C"), ("F", "F"), ("X", "X"), ("R", "X"), ("B", "X")]
)
def test_the_owner_of_a_running_task_is_asked_to_cancel_it(ledger, outcome, after):
    (claimed,) = run(ledger, "a")
    ear = Ear(ledger, owner_channel(ledger.base, "me"))
    assert ledger.cancel("a", "enough") == "P"
    asked = f"x {claimed.token} a\nenough".encode()
    ear.wait_for(asked)
    for _ in range(2):
        assert ledger.beat("me", LEASE).cancels == [("a", claimed.token, "enough")]
    assert ledger.record("a").stopping == "enough"
    assert check(ledger) == []
    assert settle(ledger, claimed, outcome, delay=9) in ACCEPTED
    assert status(ledger, "a") == after
    assert ledger.beat("me", LEASE).cancels == []
    assert ledger.cancel("a", "too late") == after


def test_a_task_that_shall_be_cancelled_is_cancelled_when_its_owner_dies(ledger):
    run(ledger, "a")
    ledger.cancel("a", "enough")
    die(ledger, "me")
    record = ledger.record("a")
    assert (record.status, record.why) == ("X", "enough")


# --- the end


def test_finished_ones_are_forgotten_after_their_time(ledger):
    kept = run(ledger, "a", "b", "c", result_ttl=100)
    (short,) = run(ledger, "short", result_ttl=0)
    for each, outcome in zip((*kept, short), "CFXC", strict=True):
        settle(ledger, each, outcome, end=b"end", result=b"result")
    let_pass(ledger, 9)
    ledger.beat("me", LEASE)
    assert ledger.record("short"), "it is kept for a moment in any case"
    let_pass(ledger, 2)
    ledger.beat("me", LEASE)
    assert ledger.record("short") is None
    let_pass(ledger, 90)
    ledger.beat("me", LEASE)
    assert ledger.counts()[:8] == (0,) * 8
    keys = ledger.server.call(ledger.base, "KEYS", f"{ledger.base}:*")
    assert {key.decode().removeprefix(ledger.base) for key in keys} == {
        ":own",
        ":ol",
        ":st",
        ":ids",
        ":ida",
    } - (set() if len(keys) == 4 else {":ids", ":ida"})


def test_as_many_are_forgotten_as_end(single):
    names = [f"n{at}" for at in range(100)]
    for each in run(single, *names, result_ttl=20):
        settle(single, each, "C")
    let_pass(single, 30)
    for each in run(single, *[f"m{at}" for at in range(60)]):
        settle(single, each, "C")
    assert single.counts().completed <= 61


def test_a_failed_task_is_sent_back(ledger):
    one, two, three = run(ledger, "one", "two", "three", unique="", ttl=50)
    settle(ledger, one, "F", end=b"end", result=b"why")
    settle(ledger, two, "C")
    enqueue(ledger, "other")
    assert ledger.requeue(["one", "two", "three", "nobody", "one"]) in (1, 2)
    record = ledger.record("one")
    assert (record.status, record.attempt, record.losses, record.end) == ("W", 0, 0, b"")
    assert record.finished is record.started is None
    claimed = claim(ledger)
    assert list(claimed) == ["other", "one"], "after all others"
    assert (claimed["one"].attempt, claimed["one"].envelope) == (1, b"envelope of one")
    assert settle(ledger, claimed["one"], "F") in ACCEPTED
    assert ledger.requeue(["one"]) == 1
    let_pass(ledger, 51)
    assert claim(ledger) == {}, "it must start in time again"
    assert [each.id for each in ledger.find()] == ["one", "two", "three", "other"]
    assert three.attempt == 1


def test_a_failed_task_is_not_sent_back_while_another_has_its_key(ledger):
    (one,) = run(ledger, "one", unique="key")
    settle(ledger, one, "F")
    enqueue(ledger, "two", unique="key")
    assert ledger.requeue(["one"]) == 0
    ledger.cancel("two")
    assert ledger.requeue(["one"]) == 1
    assert enqueue(ledger, "two", unique="key") == ["one"]


def test_a_task_is_deleted_unless_it_runs(single):
    _, ended, failed = run(single, "running", "ended", "failed", unique="")
    settle(single, ended, "C", end=b"end")
    settle(single, failed, "F", end=b"end")
    enqueue(single, "waiting", unique="key", ttl=9)
    enqueue(single, "late", delay=9)
    channel = client_channel(single.base, "client")
    ear = Ear(single, channel)
    single.watch(channel, ["waiting"])
    assert not single.delete("running")
    for name in ("ended", "failed", "waiting", "late"):
        assert single.delete(name)
        assert single.record(name) is None
        assert not single.delete(name)
    ear.wait_for(b"Xwaiting\n!")
    assert enqueue(single, "waiting", unique="key") == [None]


# --- pause


def test_a_paused_queue_hands_out_nothing(ledger):
    begin(ledger)
    ear = Ear(ledger, owner_channel(ledger.base, "me"))
    turn(ledger, sync=1)
    ledger.pause()
    ledger.pause()
    enqueue(ledger, "a")
    assert ledger.counts().paused
    assert ledger.beat("me", LEASE).paused
    taken = turn(ledger, sync=5)
    assert (taken.claims, taken.left_sync) == ([], 0)
    assert ear.heard == []
    ledger.resume()
    ear.wait_for(b"w 1 0")
    assert not ledger.counts().paused
    assert not ledger.beat("me", LEASE).paused
    assert list(claim(ledger)) == ["a"]


def test_what_runs_in_a_paused_queue_comes_to_its_end(ledger):
    one, two = run(ledger, "one", "two")
    ledger.pause()
    assert settle(ledger, one, "C") in ACCEPTED
    assert settle(ledger, two, "R") in ACCEPTED
    assert claim(ledger) == {}


# --- waking


def test_who_is_parked_is_woken_those_with_most_room_first(single):
    rooms = {"small": 1, "large": 9, "middle": 4}
    ears = {}
    for owner, room in rooms.items():
        begin(single, owner)
        ears[owner] = Ear(single, owner_channel(single.base, owner))
        turn(single, owner=owner, asyncs=room)
    enqueue(single, "a", "b", kind="a")
    ears["large"].wait_for(b"w 0 2")
    # as many are woken as have room for what came
    enqueue(single, *"cdefg", kind="a")
    ears["middle"].wait_for(b"w 0 7")
    ears["small"].wait_for(b"w 0 7")
    assert ears["large"].heard == []


def test_only_those_are_woken_that_have_room_for_the_kind(single):
    begin(single, "sync", "async")
    ears = {each: Ear(single, owner_channel(single.base, each)) for each in ("sync", "async")}
    turn(single, owner="sync", sync=1)
    turn(single, owner="async", asyncs=1)
    enqueue(single, "s", "t", kind="s")
    ears["sync"].wait_for(b"w 2 0")
    enqueue(single, "a", "b", kind="a")
    ears["async"].wait_for(b"w 2 2")
    assert ears["sync"].heard == []


def test_what_an_owner_leaves_wakes_the_next(single):
    begin(single, "me", "next")
    ear = Ear(single, owner_channel(single.base, "next"))
    single.pause()
    enqueue(single, "a", "b")
    turn(single, owner="next", sync=2)
    single.server.call(single.base, "HDEL", f"{single.base}:st", "paused")
    assert len(turn(single, sync=1).claims) == 1
    ear.wait_for(b"w 1 0")


def test_one_to_whom_nobody_listens_is_passed_over(single):
    begin(single, "deaf", "me")
    ear = Ear(single, owner_channel(single.base, "me"))
    turn(single, owner="deaf", sync=100)
    turn(single, owner="me", sync=1)
    enqueue(single, "a", "b")
    ear.wait_for(b"w 2 0")


# --- handing over


def test_a_task_that_comes_alone_is_handed_to_who_has_most_room(single):
    rooms = {"small": 1, "large": 2}
    ears = {}
    for owner, room in rooms.items():
        begin(single, owner)
        ears[owner] = Ear(single, owner_channel(single.base, owner))
        turn(single, owner=owner, sync=room)
    for task_id, owner in {"a": "large", "b": "large", "c": "small"}.items():
        enqueue(single, task_id)
        (token,) = [token for own, token in single.owned(owner).items() if own == task_id]
        left = {"a": 1, "b": 0, "c": 0}[task_id]
        ears[owner].wait_for(
            b"t %d %d 0 %b\nenvelope of %b" % (token, left, *[task_id.encode()] * 2)
        )
        assert status(single, task_id) == "P"
        assert check(single) == []
    # nobody has room for one more: it waits
    enqueue(single, "d")
    assert status(single, "d") == "W"
    assert [each.heard for each in ears.values()] == [[], []]


def test_what_was_handed_over_is_settled_like_any_other(ledger):
    begin(ledger, "me")
    ear = Ear(ledger, owner_channel(ledger.base, "me"))
    turn(ledger, sync=1)
    enqueue(ledger, "a")
    ear.wait_for_one()
    ((task_id, token),) = ledger.owned("me").items()
    verdicts = turn(ledger, Settlement(task_id, token, "C")).verdicts
    assert verdicts[0] in ACCEPTED
    assert status(ledger, "a") == "C"


def test_a_refund_of_what_never_arrived_puts_it_at_its_place(ledger):
    begin(ledger, "me")
    ear = Ear(ledger, owner_channel(ledger.base, "me"))
    turn(ledger, sync=1)
    enqueue(ledger, "a", ttl=60)
    ear.wait_for_one()
    ((task_id, token),) = ledger.owned("me").items()
    turn(ledger, Settlement(task_id, token, "B"))
    assert status(ledger, "a") == "W"
    (again,) = claim(ledger).values()
    assert again.attempt == 1


@pytest.mark.parametrize("why", ["nobody listens", "paused", "delayed", "it has not been heard of"])
def test_a_task_is_not_handed_over_where(why, ledger):
    begin(ledger, "me")
    if why != "nobody listens":
        Ear(ledger, owner_channel(ledger.base, "me"))
    turn(ledger, sync=5)
    if why == "paused":
        ledger.pause()
    if why == "it has not been heard of":
        let_pass(ledger, LEASE / 2)
    enqueue(ledger, "a", delay=30 if why == "delayed" else 0)
    assert status(ledger, "a") == "W"
    assert ledger.owned("me") == {}


def test_a_wake_that_was_lost_is_repaired_by_any_beat(single):
    begin(single, "hung", "me", "full")
    hung = Ear(single, owner_channel(single.base, "hung"))
    ear = Ear(single, owner_channel(single.base, "me"))
    turn(single, owner="hung", sync=100)
    turn(single, owner="me", sync=1)
    enqueue(single, "a", "b")
    hung.wait_for(b"w 2 0")
    single.beat("full", LEASE)
    ear.wait_for(b"w 2 0")


def test_somebody_is_told_of_the_next_delayed_task(single):
    begin(single, "one", "two")
    ears = [Ear(single, owner_channel(single.base, each)) for each in ("one", "two")]
    turn(single, owner="one", sync=2)
    turn(single, owner="two", sync=1)
    enqueue(single, "late", delay=50)
    ears[0].wait_for(b"w 0 0")
    assert turn(single, owner="one", sync=2).next_due <= 50
    enqueue(single, "later", delay=70)
    enqueue(single, "sooner", delay=20)
    ears[0].wait_for(b"w 0 0")
    assert ears[1].heard == []


def test_a_task_that_comes_back_wakes_somebody(single):
    one, two = run(single, "one", "two")
    begin(single, "next")
    ear = Ear(single, owner_channel(single.base, "next"))
    turn(single, owner="next", sync=1)
    settle(single, one, "R")
    ear.wait_for(b"w 1 0")
    claim(single, owner="next", sync=5)
    single.resign("me")
    ear.wait_for(b"w 1 0")
    assert list(claim(single, owner="next")) == ["two"]
    assert two.attempt == 1


# --- telling


@pytest.mark.parametrize("outcome", "CFX")
@pytest.mark.parametrize("channel", ["own", "foreign"])
def test_the_client_is_told_of_the_end(ledger, outcome, channel):
    channel = client_channel(ledger.base, "me") if channel == "own" else "somewhere:else"
    ear = Ear(ledger, channel)
    (claimed,) = run(ledger, "a", reply=channel)
    settle(ledger, claimed, outcome, end=b"end\n", result=b"\nresult")
    ear.wait_for(outcome.encode() + b"a\n4\nend\n\nresult")


@pytest.mark.parametrize(("size", "told"), [(8000, True), (8300, False)])
def test_a_large_end_is_to_be_fetched(ledger, size, told):
    ear = Ear(ledger, client_channel(ledger.base, "me"))
    (claimed,) = run(ledger, "a", reply=client_channel(ledger.base, "me"))
    settle(ledger, claimed, "C", end=b"end", result=bytes(size))
    ear.wait_for(b"Ca\n3\nend" + bytes(size) if told else b"Ca\n!")
    assert ledger.record("a").result == bytes(size)


def test_an_end_without_an_owner_is_to_be_fetched(ledger):
    channel = client_channel(ledger.base, "me")
    ear = Ear(ledger, channel)
    begin(ledger)
    enqueue(ledger, "cancelled", "late", reply=channel, ttl=5)
    ledger.cancel("cancelled")
    let_pass(ledger, 6)
    ledger.beat("me", LEASE)
    ear.wait_for(b"Xcancelled\n!", b"Flate\n!")


def test_who_watches_is_told_or_has_it_in_the_record(ledger):
    one, two = run(ledger, "one", "two", reply="first")
    settle(ledger, one, "C", end=b"end", result=b"result")
    first, second = Ear(ledger, "first"), Ear(ledger, client_channel(ledger.base, "second"))
    done, running, unknown = ledger.watch(
        client_channel(ledger.base, "second"), ["one", "two", "nobody"]
    )
    assert (done.status, done.end, done.result) == ("C", b"end", b"result")
    assert (running.status, unknown) == ("P", None)
    settle(ledger, two, "F", end=b"end")
    first.wait_for(b"Ftwo\n3\nend")
    second.wait_for(b"Ftwo\n3\nend")


def test_progress_is_told_to_those_who_asked_for_it(ledger):
    one, two = run(ledger, "one", "two", reply="first")
    first, second = Ear(ledger, "first"), Ear(ledger, "second")
    ledger.watch("second", ["one"], progress=True)
    updates = [("one", one.token, b"half\n"), ("two", two.token, b"x"), ("one", two.token, b"bad")]
    assert ledger.progress("me", updates) == 2
    assert ledger.progress("another", updates) == 0
    second.wait_for(b"pone\nhalf\n")
    assert (ledger.record("one").progress, ledger.record("two").progress) == (b"half\n", b"x")
    # who asks for more later gets more
    assert ledger.watch("first", ["one"], progress=True)[0].progress == b"half\n"
    assert ledger.progress("me", [("one", one.token, b"more")]) == 1
    first.wait_for(b"pone\nmore")
    second.wait_for(b"pone\nmore")
    # another attempt begins without
    settle(ledger, one, "R")
    assert ledger.record("one").progress == b""
    assert ledger.progress("me", [("one", one.token, b"late")]) == 0


def test_many_and_large_ones_are_watched_in_parts(ledger):
    names = [f"n{at}" for at in range(2 * BATCH + 3)]
    claimed = run(ledger, *names[:5])
    for each in claimed:
        settle(ledger, each, "C", result=bytes(700_000))
    enqueue(ledger, *names[5:])
    records = ledger.watch("channel", [*names, "nobody"])
    assert [each and each.id for each in records] == [*names, None]
    assert [len(each.result) for each in records[:6]] == [700_000] * 5 + [0]
    assert [each.id for each in ledger.find("CW", limit=1000)] == names


def test_those_who_went_without_a_word_are_forgotten_in_the_end(ledger):
    enqueue(ledger, "a")
    living = client_channel(ledger.base, "living")
    ear = Ear(ledger, living)
    ledger.watch(living, ["a"], progress=True)
    for number in range(100):
        ledger.watch(f"channel that{number:040}".replace(" ", "-"), ["a"])
    kept = ledger.server.call(ledger.base, "HGET", f"{ledger.base}:t:a", "w")
    assert len(kept) < 2000
    ledger.cancel("a")
    ear.wait_for(b"Xa\n!")


def test_many_who_listen_are_all_kept_and_asking_again_asks_nobody_about_them(single):
    enqueue(single, "a")
    channels = [client_channel(single.base, f"client{number:030}") for number in range(100)]
    ears = [Ear(single, channel) for channel in channels]
    for channel in channels:
        single.watch(channel, ["a"])
    asked = "cmdstat_pubsub|numsub"
    before = _calls(single, asked)
    for channel in channels:
        single.watch(channel, ["a"])
    assert _calls(single, asked) == before
    assert before <= len(channels)
    single.cancel("a")
    for ear in ears:
        ear.wait_for(b"Xa\n!")


def _calls(ledger, command):
    """How often the server has run a command so far."""
    told = ledger.server.call(ledger.base, "INFO", "commandstats").decode()
    found = [line for line in told.splitlines() if line.startswith(command.split("|")[0])]
    return sum(int(re.search(r"calls=(\d+)", line)[1]) for line in found)


# --- finding and counting


def test_tasks_are_found_in_order_of_submission_whatever_became_of_them(ledger):
    begin(ledger)
    names = [f"n{at}" for at in range(30)]
    for at, name in enumerate(names):
        enqueue(ledger, name, kind="sa"[at % 2], priority=at % 3, delay=50 * (at % 5 == 4))
    claimed = claim(ledger, sync=6, asyncs=6)
    for at, each in enumerate(claimed.values()):
        if at % 4:
            settle(ledger, each, "CFX"[at % 3])
    by_status = {}
    for each in ledger.find(limit=100):
        by_status.setdefault(each.status, []).append(each.id)
    assert [each.id for each in ledger.find(limit=100)] == names
    assert sum(map(len, by_status.values())) == 30 and len(by_status) == 5
    for letters in ("W", "P", "C", "F", "X", "CFX", "WP", "XWC"):
        expected = sorted(
            (name for letter in letters for name in by_status[letter]), key=names.index
        )
        for offset, limit in ((0, 50), (0, 3), (2, 5), (len(expected), 5), (99, 5), (1, 0)):
            found = ledger.find(letters, offset, limit)
            assert [each.id for each in found] == expected[offset : offset + limit]
    counts = ledger.counts()
    assert (counts.waiting, *counts[4:8]) == tuple(len(by_status[each]) for each in "WPCFX")
    assert counts.total_queued == 30
    assert counts[9:12] == counts[5:8]


def test_a_record_tells_all_about_a_task(ledger):
    (claimed,) = run(ledger, "a", kind="a", priority=-7, once=True, unique="key", ttl=1.5)
    record = ledger.record("a")
    assert record[:6] == ("a", "P", "tests.name", "a", record.sequence, -7)
    assert (record.attempt, record.token, record.owner) == (1, claimed.token, "me")
    assert (record.once, record.unique, record.ttl) == (True, "key", 1.5)
    assert ledger.record("nobody") is None
    assert ledger.find("XF") == []


@pytest.mark.parametrize(
    ("end", "result"), [(b"", b""), (b"12\n", b""), (b"", b"\n"), (b"a", b"b")]
)
def test_an_end_and_a_result_are_kept_as_one_and_told_apart(end, result):
    assert parts(body_of(end, result)) == (end, result)


def test_small_questions_are_answered(ledger):
    assert (ledger.owners(), ledger.names(), ledger.envelope("nobody")) == (0, {}, None)
    begin(ledger, "me", "another")
    ledger.announce({"tests.one": "sync", "tests.two": "async"})
    ledger.announce({})
    enqueue(ledger, "a", "b")
    assert ledger.owners() == 2
    assert ledger.names() == {"tests.one": "sync", "tests.two": "async"}
    assert ledger.envelope("a") == b"envelope of a"
    assert [ledger.counts().of(letter) for letter in "WPCFX"] == [2, 0, 0, 0, 0]


# --- the server


def test_a_waiting_task_takes_little_memory(single):
    # given as many tasks as fill the tables of the server's well
    count, server = 20_000, single.server
    server.call(single.base, "FLUSHALL", "SYNC")

    def used():
        info = server.call(single.base, "INFO", "memory").decode()
        return int(info.split("used_memory:")[1].split()[0])

    enqueue(single, "warm")
    before = used()
    names = [f"{at:024}" for at in range(count)]
    reply = client_channel(single.base, "0123456789abcdef")
    enqueue(single, *names, envelope=bytes(150), reply=reply, name="app.tasks.thumbnail")
    each = (used() - before) / count
    for key in (":t:" + names[0], ":t:" + names[-1]):
        assert server.call(single.base, "OBJECT", "ENCODING", single.base + key) in (
            b"listpack",
            b"ziplist",
        )
    server.call(single.base, "FLUSHALL", "SYNC")
    assert each <= 700


def test_a_full_server_takes_no_tasks_and_lets_work_be_finished(single):
    one, two = run(single, "one", "two")
    enqueue(single, "three", "four")
    call = single.server.call
    call(single.base, "CONFIG", "SET", "maxmemory", "1mb")
    try:
        with pytest.raises(ServerError, match=r"OOM|maxmemory"):
            enqueue(single, "five")
        assert not single.beat("me", LEASE).lost
        taken = turn(single, Settlement("one", one.token, "C", b"end"), sync=9)
        assert (taken.verdicts, [each.id for each in taken.claims]) == ([DONE], ["three", "four"])
        assert single.cancel("two") == "P"
        single.resign("me")
    finally:
        call(single.base, "CONFIG", "SET", "maxmemory", "0")
    assert status(single, "two") == "X"
    assert two.attempt == 1


def test_a_server_that_may_drop_records_is_refused(single):
    call = single.server.call
    single.check_server()
    call(single.base, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(ConfigurationError, match=r"'allkeys-lru'.*config set maxmemory-policy"):
            single.check_server()
    finally:
        call(single.base, "CONFIG", "SET", "maxmemory-policy", "noeviction")


def test_a_server_that_does_not_tell_is_let_through_with_a_warning(running, make_server, caplog):
    running.command("ACL", "SETUSER", "limited", "on", ">secret", "~*", "&*", "+@all", "-config")
    try:
        url = running.url.replace("redis://", "redis://limited:secret@")
        Ledger(make_server(url), "tests", "limited").check_server()
    finally:
        running.command("ACL", "DELUSER", "limited")
    assert "noeviction" in caplog.text


@pytest.mark.parametrize("name", ["", "a b", "a{b}", "a:b", "n" * 101, "tab\t", None])
def test_names_that_would_break_a_key_are_refused(name):
    with pytest.raises(ConfigurationError, match=r"characters|leave out"):
        Ledger(None, name, "queue")
    with pytest.raises(ConfigurationError, match=r"characters|leave out"):
        Ledger(None, "namespace", name)


def test_a_queue_lives_on_one_node_of_a_cluster(make_server):
    with Cluster() as cluster:
        for number in range(3):  # on different nodes
            ledger = Ledger(make_server(cluster.url), "tests", f"queue{number}")
            claimed = run(ledger, "a", "b", "c", reply=client_channel(ledger.base, "me"))
            ear = Ear(ledger, client_channel(ledger.base, "me"))
            enqueue(ledger, "late", delay=50, priority=5, unique="key", ttl=7)
            settle(ledger, claimed[0], "C", end=b"end")
            settle(ledger, claimed[1], "R")
            ledger.cancel("c")
            ear.wait_for(b"Ca\n3\nend")
            die(ledger, "me")
            assert [each.status for each in ledger.find()] == ["C", "W", "X", "W"]
            assert check(ledger) == []
            ledger.server.close()


# --- anything in any order


class Story:
    """Random steps of clients and owners, and what must hold of their answers."""

    def __init__(self, ledger, seed):
        self.ledger = ledger
        self.random = random.Random(seed)
        self.owners = {}  # name -> its claims by id
        self.woken = set()
        self.names = itertools.count()
        self.last_token = 0
        self.ended = set()  # tokens under which an end was accepted
        self.request = None

    def step(self):
        steps = [self.enqueue] * 4 + [self.turn] * 6 + [self.beat] * 2 + [
            self.cancel, self.delete, self.requeue, self.begin, self.resign, self.pause, self.watch,
            self.time, self.stall, self.vow, self.progress,
        ]  # fmt: skip
        self.random.choice(steps)()

    def some_id(self):
        return f"t{self.random.randrange(40)}"

    def some_owner(self):
        return self.random.choice(list(self.owners) or [self.begin()])

    def begin(self):
        name = f"owner{next(self.names)}"
        if len(self.owners) < 4:
            self.owners[name] = {}
            channel = owner_channel(self.ledger.base, name)
            self.ledger.server.subscribe(
                self.ledger.base, channel, lambda message: self.woken.add(name)
            )
            assert not self.ledger.beat(name, LEASE, first=True).lost
        return name

    def enqueue(self):
        chance, request = self.random, next(requests)
        batch = [
            entry(
                f"t{number}",
                kind=chance.choice("sa"),
                priority=chance.choice([0, 0, 0, 5, -5]),
                delay=chance.choice([0, 0, 0, 3]),
                ttl=chance.choice([0, 0, 4]),
                unique=chance.choice(["", "", "k1", "k2"]),
                once=chance.random() < 0.1,
                max_losses=2,
                result_ttl=chance.choice([0, 30]),
            )
            for number in chance.sample(range(40), chance.randrange(1, 5))
        ]
        answers = self.ledger.enqueue(batch, request)
        assert self.ledger.enqueue(batch, request)[0] == answers[0]

    def turn(self):
        chance = self.random
        owner = self.some_owner()
        if owner not in self.owners:
            return
        mine = self.owners[owner]
        settled = [
            Settlement(
                each.id, each.token, chance.choice("CFXRB"), b"end", b"", chance.choice([0, 2])
            )
            for each in mine.values()
            if chance.random() < 0.5
        ]
        room = (chance.randrange(4), chance.randrange(4))
        result = self.ledger.turn(owner, next(requests), settled, *room, LEASE)
        self.woken.discard(owner)
        for settlement, verdict in zip(settled, result.verdicts, strict=True):
            del mine[settlement.id]
            assert verdict in (DONE, REPLAY, STALE, GONE)
            if verdict == DONE and settlement.outcome in "CFX":
                assert settlement.token not in self.ended
                self.ended.add(settlement.token)
        if result.lost:
            del self.owners[owner]
        kinds = dict(zip("sa", room, strict=True))
        for each in result.claims:
            assert each.token > self.last_token
            self.last_token = each.token
            assert all(each.id not in other for other in self.living())
            mine[each.id] = each
            kinds[self.ledger.record(each.id).kind] -= 1
        assert min(kinds.values()) >= 0

    def living(self):
        """What owners hold that have not been condemned without knowing it yet."""
        return [
            mine
            for owner, mine in self.owners.items()
            if self.ledger.owned(owner).keys() >= mine.keys()
        ]

    def beat(self):
        owner = self.some_owner()
        if owner in self.owners and self.ledger.beat(owner, LEASE).lost:
            del self.owners[owner]

    def cancel(self):
        assert self.ledger.cancel(self.some_id(), "why") in (None, "X", "P", "C", "F")

    def delete(self):
        self.ledger.delete(self.some_id())

    def requeue(self):
        self.ledger.requeue({self.some_id() for _ in range(5)})

    def resign(self):
        owner = self.some_owner()
        if self.owners.pop(owner, None) is not None:
            self.ledger.resign(owner)

    def pause(self):
        if self.ledger.counts().paused:
            self.ledger.resume()
        elif self.random.random() < 0.3:
            self.ledger.pause()

    def watch(self):
        self.ledger.watch("channel", [self.some_id() for _ in range(3)], progress=True)

    def time(self):
        let_pass(self.ledger, self.random.choice([0.5, 2, LEASE * 0.4]))

    def stall(self):
        """All owners but one are not heard of for longer than a lease."""
        if self.random.random() < 0.3 and self.owners:
            for _ in range(3):
                let_pass(self.ledger, LEASE * 0.45)
                self.ledger.beat(next(iter(self.owners)), LEASE)

    def vow(self):
        for owner, mine in self.owners.items():
            for each in list(mine.values())[:1]:
                self.ledger.vow(owner, each.id, each.token)

    def progress(self):
        for owner, mine in self.owners.items():
            updates = [(each.id, each.token, b"half") for each in mine.values()]
            assert self.ledger.progress(owner, updates) <= len(updates)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_in_whatever_order_the_records_are_whole(ledger, seed):
    story = Story(ledger, seed)
    for number in range(250):
        story.step()
        assert check(ledger) == [], f"after step {number}"
    # and when all is calm, all comes to its end
    ledger.resume()
    let_pass(ledger, 5)
    begin(ledger, "last")
    for owner in list(story.owners):
        ledger.resign(owner)
    wait_until(lambda: _drained(ledger), SOON, "all is done")
    gevent.sleep(0)


def _drained(ledger):
    ledger.beat("last", LEASE)
    taken = claim(ledger, owner="last")
    turn(ledger, *[Settlement(each.id, each.token, "C") for each in taken.values()], owner="last")
    let_pass(ledger, 1)
    counts = ledger.counts()
    return counts.waiting == counts.processing == 0


# --- records that another program has damaged

_FIELDS = "st n k q c rt ml a lo t ow b x w pl pr sb tt rq u on lt".split()  # noqa: SIM905


def _spoil(ledger, value, *ids):
    """Removes a field of each record, or writes something else there; another field for each."""
    for task_id, field in zip(ids, _FIELDS, strict=True):
        key = f"{ledger.base}:t:{task_id}"
        words = ("HDEL", key, field) if value is None else ("HSET", key, field, value)
        ledger.server.call(ledger.base, *words)


@pytest.mark.parametrize("value", [None, "zz", ""])
def test_damaged_records_harm_no_others(server, value):
    ledger = Ledger(server, "damaged", f"queue {value!r}".replace(" ", "-"))
    begin(ledger, "dead")
    kinds = {
        "running": {"unique": "", "reply": "c"},
        "settled": {},
        "late": {"ttl": 5},
        "delayed": {"delay": 5, "priority": 3},
        "plain": {},
    }
    named = {kind: [f"{kind}-{field}" for field in _FIELDS] for kind in kinds}
    for kind in ("running", "settled"):
        for each in named[kind]:
            enqueue(ledger, each, **kinds[kind])
        ledger.turn("dead", next(requests), [], BATCH, 0, LEASE)
    for kind in ("late", "delayed", "plain"):
        for each in named[kind]:
            enqueue(ledger, each, **kinds[kind])
    tokens = ledger.owned("dead")
    for ids in named.values():
        _spoil(ledger, value, *ids)
    for ids in named.values():
        ledger.find()
        ledger.watch("channel", ids)
    settlements = [
        Settlement(each, tokens[each], "CFRLB"[at % 5]) for at, each in enumerate(named["settled"])
    ]
    ledger.turn("dead", next(requests), settlements, 0, 0, LEASE)
    begin(ledger, "alive")
    let_pass(ledger, LEASE + 1)
    assert not ledger.beat("alive", LEASE, first=True).lost
    for kind in ("running", "plain"):
        for each in named[kind][::2]:
            ledger.cancel(each)
    enqueue(ledger, "good")
    claimed = set()
    while found := ledger.turn("alive", next(requests), [], BATCH, BATCH, LEASE).claims:
        claimed |= {each.id for each in found}
        let_pass(ledger, 1)
    assert "good" in claimed
    ledger.resign("alive")
    ledger.requeue(named["late"])
    for ids in named.values():
        for each in ids:
            ledger.delete(each)
