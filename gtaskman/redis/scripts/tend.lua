-- Renews the lease of one who writes to a storage, and fails the open reports of those who died.
-- ARGV: owner ('': none, reap only) lease_ms
-- Gives how many open reports the owner has. Sent again: renews once more, reaps once more.

local owner, lease = ARGV[1], tonumber(ARGV[2])
local OWNERS = B .. ':own'

-- If nobody has renewed for half a lease, the server was away: each gets a fresh lease.
local function give_fresh_leases()
  for _, each in ipairs(call('ZRANGE', OWNERS, 0, -1)) do call('ZADD', OWNERS, NOW + lease, each) end
end

local function lose(id, dead)
  local h = call('HMGET', T(id), 'st', 'ow', 'q', 'rt')
  if h[2] ~= dead or (h[1] ~= 'W' and h[1] ~= 'P') then return end
  call('ZREM', B .. (h[1] == 'W' and ':wx' or ':run'), id)
  call('HSET', T(id), 'st', 'F', 'y', 'gone', 'f', MOMENT)
  call('UNLINK', E(id))
  call('ZADD', B .. ':xF', h[3], id)
  call('ZADD', B .. ':ex', NOW + math.max(tonumber(h[4]), KEPT), id)
end

local function reap(budget)
  for _, dead in ipairs(call('ZRANGEBYSCORE', OWNERS, '-inf', NOW, 'LIMIT', 0, 16)) do
    local O = B .. ':o:' .. dead
    local ids = call('HRANDFIELD', O, budget)
    for _, id in ipairs(ids) do lose(id, dead) end
    if #ids > 0 then call('HDEL', O, unpack(ids)) end
    if call('EXISTS', O) == 0 then call('ZREM', OWNERS, dead) end
  end
end

relieve()
local O, open = B .. ':o:' .. owner, 0
if owner ~= '' then
  open = call('HLEN', O)
  if open > 0 then call('ZADD', OWNERS, NOW + lease, owner) else call('ZREM', OWNERS, owner) end
  local last = tonumber(call('HGET', STATE, 'tick') or NOW)
  if NOW - last > lease / 2 or NOW < last then give_fresh_leases() end
  call('HSET', STATE, 'tick', MOMENT)
end
reap(256)
return open
