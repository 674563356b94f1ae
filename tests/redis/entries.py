"""Tasks for tests of a queue in Redis, a server that runs all twice, and how time passes."""

from __future__ import annotations

from gtaskman.redis.ledger import Entry
from gtaskman.redis.server import Server

LEASE = 10.0  # seconds, of all owners


class TwiceServer(Server):
    """Runs each script twice, as if the first reply had been lost on its way."""

    def script(self, script, base, *args, **options):
        super().script(script, base, *args, **options)
        return super().script(script, base, *args, **options)


def entry(task_id, **values):
    """An entry with nothing special about it but ``values``."""
    plain = {
        "name": "tests.name",
        "kind": "s",
        "priority": 0,
        "delay": 0.0,
        "eta": 0.0,
        "ttl": 0.0,
        "result_ttl": 60.0,
        "max_losses": 3,
        "once": False,
        "unique": "",
        "reply": "",
        "envelope": f"envelope of {task_id}".encode(),
    }
    return Entry(task_id, **{**plain, **values})


_SHIFT = """
local by, served = tonumber(ARGV[1]), ARGV[2] == '1'
local B = KEYS[1]
for _, name in ipairs({'own', 'dl', 'tl', 'ex'}) do
  local all = redis.call('ZRANGE', B .. ':' .. name, 0, -1, 'WITHSCORES')
  for at = 1, #all, 2 do
    local score = tonumber(all[at + 1])
    if score >= 0 then redis.call('ZADD', B .. ':' .. name, score - by, all[at]) end
  end
end
for _, index in ipairs({'ws', 'wa', 'wx', 'run'}) do
  for _, id in ipairs(redis.call('ZRANGE', B .. ':' .. index, 0, -1)) do
    local last = redis.call('HGET', B .. ':t:' .. id, 'sb')
    if last and tonumber(last) then
      redis.call('HSET', B .. ':t:' .. id, 'sb', string.format('%.0f', tonumber(last) - by))
    end
  end
end
local state = redis.call('HGETALL', B .. ':st')
for at = 1, #state, 2 do
  if string.sub(state[at], 1, 3) == 'su:' then
    local first, since, rest = string.match(state[at + 1], '^(.*) (%d+)( %d+ %d)$')
    local earlier = first .. ' ' .. string.format('%.0f', tonumber(since) - by) .. rest
    redis.call('HSET', B .. ':st', state[at], earlier)
  end
end
local tick = redis.call('HGET', B .. ':st', 'tick')
if tick and not served then
  redis.call('HSET', B .. ':st', 'tick', string.format('%.0f', tonumber(tick) - by))
end
return 1
"""


def let_pass(ledger, seconds, served=True):
    """Make it so much later for a queue: all that is kept of times moves into the past.

    ``served``: others have beaten meanwhile; else nobody has, as while the server is away.
    """
    milliseconds = int(seconds * 1000)
    ledger.server.call(ledger.base, "EVAL", _SHIFT, 1, ledger.base, milliseconds, int(served))
