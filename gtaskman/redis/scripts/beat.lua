-- Renews an owner's lease, and keeps house: reaps the dead, sweeps, repairs wakes that were lost.
-- ARGV: owner lease_ms first (1: register, 0: it must be known)
-- Gives {lost, owned, cancels asked (flat: id token reason), next due in ms or -1, paused, reaped,
-- swept, next end of a lease in ms or -1}.
-- Sent again: renews once more, keeps house once more.

local owner, lease, first = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local OWNERS, LEASES = B .. ':own', B .. ':ol'

-- Owners beat four times in their lease. If there was no beat for longer, the server was away, and
-- its owners were not: they get fresh leases, each as long as its own. Each owner's lease is kept in
-- `ol`, below zero once it was renewed in this way and the owner has not beaten since.
--
-- * No beat for half the lease of the last owner that beat, or the clock went back: all of them.
-- * No beat for half of shorter leases: those owners, if they were alive at the last beat; once,
--   so that the lease of one that died meanwhile ends all the same.
local function renew_leases(since, gap, all)
  local leases, shortest = call('HGETALL', LEASES), nil
  local own = {}
  for at = 1, #leases, 2 do
    local theirs = tonumber(leases[at + 1])
    own[leases[at]] = theirs
    shortest = math.min(shortest or math.abs(theirs), math.abs(theirs))
  end
  local flat = call('ZRANGEBYSCORE', OWNERS, all and 0 or S(since), '+inf', 'WITHSCORES')
  for at = 1, #flat, 2 do
    local each, ends, theirs = flat[at], tonumber(flat[at + 1]), own[flat[at]] or lease
    if each ~= owner and (all or (theirs > 0 and gap > theirs / 2)) then
      local fresh_end = NOW + math.abs(theirs)
      if NOW >= since then fresh_end = math.max(ends, fresh_end) end
      call('ZADD', OWNERS, S(fresh_end), each)
      if not all then call('HSET', LEASES, each, S(-theirs)) end
    end
  end
  call('HSET', STATE, 'short', S(shortest or lease))
end

local function mind_leases(last, last_lease, shortest)
  local gap = NOW - last
  if gap > last_lease / 2 or gap < 0 then
    renew_leases(last, gap, true)
  elseif gap > shortest / 2 then
    renew_leases(last, gap, false)
  end
end

-- A record whose owner died under it: back to its place, with the loss counted.
local function lose(id)
  local r = load(id)
  if not r.st then return end
  local losses = (tonumber(r.lo) or 0) + 1
  call('HSET', T(id), 'lo', losses)
  if r.x then
    finish(id, r, 'X', nil, '', r.x)
  elseif r.on then
    finish(id, r, 'F', nil, '', 'lost')
  elseif losses >= (tonumber(r.ml) or 1) then
    finish(id, r, 'F', nil, '', 'poison')
  else
    call('HSET', T(id), 'st', 'W')
    call('HDEL', T(id), 'ow', 'pg', 'b')
    place(id, r)
  end
end

-- In steps: who is condemned (its deadline below zero) cannot claim or beat any more, and is gone
-- when all that it owned has been taken from it.
local function reap(budget)
  local reaped = 0
  local dead = call('ZRANGEBYSCORE', OWNERS, '-inf', NOW, 'LIMIT', 0, 16)
  for _, each in ipairs(dead) do
    local O = B .. ':o:' .. each
    call('ZADD', OWNERS, -1, each)
    call('ZREM', B .. ':ids', each)
    call('ZREM', B .. ':ida', each)
    if reaped < budget then
      local ids = call('HRANDFIELD', O, budget - reaped)
      release(each, ids)
      for _, id in ipairs(ids) do lose(id) end
      reaped = reaped + #ids
    end
    if call('EXISTS', O) == 0 then
      call('ZREM', OWNERS, each)
      call('HDEL', STATE, 'b:' .. each, 'su:' .. each)
      call('HDEL', LEASES, each)
      call('DEL', B .. ':cx:' .. each)
    end
  end
  return reaped
end

local function cancels()
  local asked = {}
  for _, id in ipairs(call('SRANDMEMBER', B .. ':cx:' .. owner, 128)) do
    local h = call('HMGET', T(id), 't', 'x')
    if h[1] and h[2] then
      asked[#asked + 1] = id
      asked[#asked + 1] = h[1]
      asked[#asked + 1] = h[2]
    else -- its record was deleted by hand
      call('SREM', B .. ':cx:' .. owner, id)
    end
  end
  return asked
end

-- Whoever beats has at least half a lease left: what ends sooner is the lease of one who is dead.
local function next_end()
  local first = call('ZRANGEBYSCORE', OWNERS, '(' .. S(NOW), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return first[2] and tonumber(first[2]) - NOW or -1
end

relieve()
local deadline = call('ZSCORE', OWNERS, owner)
if (not deadline and not first) or (deadline and tonumber(deadline) < 0) then
  return {1, 0, {}, -1, 0, 0, 0, -1}
end
call('ZADD', OWNERS, NOW + lease, owner)

local state = call('HMGET', STATE, 'tick', 'paused', 'lease', 'short')
local shortest = math.min(tonumber(state[4] or lease), lease)
call('HSET', LEASES, owner, S(lease))
mind_leases(tonumber(state[1] or NOW), tonumber(state[3] or lease), shortest)
call('HSET', STATE, 'tick', MOMENT, 'lease', S(lease))
if shortest ~= tonumber(state[4] or -1) then call('HSET', STATE, 'short', S(shortest)) end
local reaped = reap(256)
local due = promote(128)
expire(128)
local swept = sweep(512)
fresh = {s = ready('s'), a = ready('a')}
close(state[2])
return {0, call('HLEN', B .. ':o:' .. owner), cancels(), due, state[2] and 1 or 0, reaped,
        swept, next_end()}
