-- Adds tasks. ARGV: request, number of the first entry in that request, then for each entry:
--   id name kind priority delay_ms due_ms ttl_ms keep_ms max_losses once unique reply envelope
-- Gives for each: 1 it waits; or the id of the task in its way (its own: that id waits or runs
-- already; another: the holder of its unique key). A finished record of the id is replaced.
-- Sent again: a record knows the request that made it, and its number therein.

local request, first = ARGV[1], tonumber(ARGV[2])
local entries = (#ARGV - 2) / 13
local state = call('HMGET', STATE, 'seq', 'queued', 'paused', 'tok', 'lease')
local seq, queued = tonumber(state[1] or 0), tonumber(state[2] or 0)
local answers = {}
local HEARD = 0.6 -- of a lease must be left; owners beat four times in one

-- A task that comes alone, and that somebody is parked for, is handed over right here, which saves
-- the owner a turn. Gives the owner and the token, or nothing. Should the message be lost, the
-- owner finds out at a beat that it owns what it does not know of, and gives it back.
local function hand_over(id, kind, ttl, envelope)
  if entries > 1 or state[3] then return end
  local parked = call('ZRANGE', B .. ':id' .. kind, 0, 0, 'WITHSCORES')
  local owner, left = parked[1], -1 - tonumber(parked[2] or 0)
  if not owner or ready(kind) > 0 then return end
  local deadline = call('ZSCORE', B .. ':own', owner)
  -- Only to one that has been heard of lately: one that hangs would keep it for its whole lease.
  local lease = math.abs(tonumber(call('HGET', B .. ':ol', owner) or state[5] or 0))
  if not deadline or tonumber(deadline) - NOW < HEARD * lease then return end
  local token = S(math.max(US, tonumber(state[4] or 0) + 1))
  -- A server that refuses writes does so at the first one: that stands before the message.
  call('HSET', STATE, 'tok', token)
  local message = 't ' .. token .. ' ' .. S(left) .. ' ' .. ttl .. ' ' .. id .. '\n' .. envelope
  if publish(':m:' .. owner, message) == 0 then return end
  if left > 0 then
    call('ZADD', B .. ':id' .. kind, S(-left), owner)
  else
    call('ZREM', B .. ':id' .. kind, owner)
  end
  return owner, token
end

local function add(entry, id, name, kind, priority, delay, due, ttl, keep, losses, once, unique,
                   reply, envelope)
  local made_by = request .. '/' .. (first + entry)
  local known = call('HMGET', T(id), 'st', 'rq')
  if known[1] then
    if known[2] == made_by then return 1 end
    if known[1] == 'W' or known[1] == 'P' then return id end
  end
  if unique ~= '' then
    local holder = call('HGET', B .. ':u', unique)
    if holder and holder ~= id then return holder end
    call('HSET', B .. ':u', unique, id)
  end
  if known[1] then forget(id, known[1]) end
  seq = seq + 1
  queued = queued + 1
  local r = {k = kind, q = S(seq)}
  local f = {'st', 'W', 'n', name, 'k', kind, 'q', r.q, 'c', MOMENT, 'rt', keep, 'ml', losses,
             'rq', made_by}
  local function note(field, value)
    f[#f + 1] = field
    f[#f + 1] = value
  end
  if priority ~= '0' then
    r.pr = priority
    note('pr', priority)
  end
  if once == '1' then note('on', '1') end
  if unique ~= '' then note('u', unique) end
  if reply ~= '' then note('w', short(reply)) end
  due = math.max(NOW + tonumber(delay), tonumber(due))
  local owner, token
  if due <= NOW then owner, token = hand_over(id, kind, ttl, envelope) end
  if owner then
    f[2] = 'P'
    note('ow', owner)
    note('t', token)
    note('a', '1')
    note('b', MOMENT)
  end
  if ttl ~= '0' then
    local start_by = S(due + tonumber(ttl))
    note('tt', ttl)
    note('sb', start_by)
    if not owner then call('ZADD', B .. ':tl', start_by, id) end
  end
  if owner then
    call('ZADD', B .. ':run', r.q, id)
    call('HSET', B .. ':o:' .. owner, id, token)
  elseif due > NOW then
    postpone(id, r, due)
  else
    place(id, r)
  end
  call('SET', P(id), envelope)
  -- The record comes last: without it nothing of the task is handed out, and it can be sent again.
  call('HSET', T(id), unpack(f))
  return 1
end

for entry = 0, entries - 1 do
  local at = 3 + entry * 13
  answers[entry + 1] = add(entry, unpack(ARGV, at, at + 12))
end
call('HSET', STATE, 'seq', S(seq), 'queued', S(queued))
close(state[3])
return answers
