-- Renews an owner's lease, and keeps house: reaps the dead, sweeps, repairs wakes that were lost.
-- ARGV: owner lease_ms first (1: register, 0: it must be known)
-- Gives {lost, owned, cancels asked (flat: id token reason), next due in ms or -1, paused, reaped,
-- swept, next end of a lease in ms or -1}.
-- Sent again: renews once more, keeps house once more.

local owner, lease, first = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local OWNERS = B .. ':own'

-- If nobody has beaten for half a lease, the server was away, and not its owners: each of them
-- gets a fresh lease. Likewise if the clock went back.
local function give_fresh_leases()
  local all = call('ZRANGEBYSCORE', OWNERS, 0, '+inf')
  for _, each in ipairs(all) do call('ZADD', OWNERS, NOW + lease, each) end
end

-- A record whose owner died under it: back to its place, with the loss counted.
local function lose(id)
  local r = load(id)
  if not r.st then return end
  local losses = tonumber(r.lo or 0) + 1
  call('HSET', T(id), 'lo', losses)
  if r.x then
    finish(id, r, 'X', nil, '', r.x)
  elseif r.on then
    finish(id, r, 'F', nil, '', 'lost')
  elseif losses >= tonumber(r.ml) then
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
      call('HDEL', STATE, 'b:' .. each)
      call('DEL', B .. ':cx:' .. each)
    end
  end
  return reaped
end

local function cancels()
  local asked = {}
  for _, id in ipairs(call('SRANDMEMBER', B .. ':cx:' .. owner, 128)) do
    local h = call('HMGET', T(id), 't', 'x')
    asked[#asked + 1] = id
    asked[#asked + 1] = h[1]
    asked[#asked + 1] = h[2]
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

local state = call('HMGET', STATE, 'tick', 'paused')
local last = tonumber(state[1] or NOW)
if NOW - last > lease / 2 or NOW < last then give_fresh_leases() end
call('HSET', STATE, 'tick', MOMENT, 'lease', S(lease))
local reaped = reap(256)
local due = promote(128)
expire(128)
local swept = sweep(512)
fresh = {s = ready('s'), a = ready('a')}
close(state[2])
return {0, call('HLEN', B .. ':o:' .. owner), cancels(), due, state[2] and 1 or 0, reaped,
        swept, next_end()}
