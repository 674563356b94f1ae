-- Settles what an owner's tasks came to, and claims what it has room for.
-- ARGV: owner request lease_ms sync async park_sync park_async, then for each settlement:
--   id token outcome delay_ms body
-- The first two numbers are the most it claims; the others, how many of them could begin at once.
-- Outcomes: C F X the end; R tries again after the delay; L likewise, with a loss counted; B goes
-- back, not counted, and is not claimed before the delay is over.
-- Gives {lost, verdicts, claims, next due in ms or -1, ready and left: sync, async, parked (1 or 0):
--   sync, async};
--   verdicts: 1 done, 2 done before, 0 stale (the lease was lost: refused), -1 no such record;
--   claims, flat: id token attempt losses envelope.
-- An owner with free places that found nothing more is parked, to be woken when there is something.
-- Sent again: settled ones are known by their tokens; the last batch by its request.

local owner, request, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local room = {s = tonumber(ARGV[4]), a = tonumber(ARGV[5])}
local free = {s = tonumber(ARGV[6]), a = tonumber(ARGV[7])}
local O = B .. ':o:' .. owner
local MOST = 128 -- in one batch
local SHY = 2000 -- ms for which few tasks that were lost before are claimed
local GROUP = 16 -- so many
local APART = 50 -- ms after which one that has to wait is looked at again, at the earliest

-- --- settling ------------------------------------------------------------------------------------

local function refused(id, token)
  local h = call('HMGET', T(id), 'st', 'lt')
  if not h[1] then return -1 end
  return h[2] == token and 2 or 0
end

local function retry(id, r, token, delay)
  call('HSET', T(id), 'st', 'W', 'lt', token)
  call('HDEL', T(id), 'ow', 'pg', 'b')
  if delay > 0 then
    call('HSET', T(id), 'pl', '0') -- given when it is due
    postpone(id, r, NOW + delay)
  else
    r.pl = number()
    call('HSET', T(id), 'pl', r.pl)
    place(id, r)
  end
end

-- What is needed of a record at its end, and to place it again.
local function brief(id)
  local h = call('HMGET', T(id), 'q', 'rt', 'u', 'w', 'x', 'pg', 'pl', 'sb', 'on', 'k', 'pr')
  if not h[1] then return nil end
  return sound({q = h[1], rt = h[2], u = h[3], w = h[4], x = h[5], pg = h[6], pl = h[7] or nil,
                sb = h[8], on = h[9], k = h[10], pr = h[11] or nil})
end

local function settle(id, token, outcome, delay, body)
  local r = brief(id)
  if not r then return -1 end
  local over = outcome == 'C' or outcome == 'F' or outcome == 'X'
  if not over and r.x then
    finish(id, r, 'X', token, '', r.x)
  elseif outcome == 'B' then
    refund(id, r, token, tonumber(delay))
  elseif over then
    finish(id, r, outcome, token, body)
  elseif r.on then -- it was to be handed out once
    finish(id, r, 'F', token, body, body == '' and 'lost' or nil)
  else
    if outcome == 'L' then add_to(id, 'lo', 1) end
    retry(id, r, token, tonumber(delay))
  end
  return 1
end

local function settle_all()
  local verdicts, ids, settled = {}, {}, {}
  for at = 8, #ARGV, 5 do ids[#ids + 1] = ARGV[at] end
  if #ids == 0 then return verdicts end
  local held = {}
  for at, token in ipairs(call('HMGET', O, unpack(ids))) do held[ids[at]] = token end
  for at = 8, #ARGV, 5 do
    local id, token = ARGV[at], ARGV[at + 1]
    if held[id] == token then
      held[id] = nil
      settled[#settled + 1] = id
      verdicts[#verdicts + 1] = settle(unpack(ARGV, at, at + 4))
    else
      verdicts[#verdicts + 1] = refused(id, token)
    end
  end
  release(owner, settled)
  sweep(#ids + 1) -- more are forgotten than end: what is kept stops growing, whatever the rate
  return verdicts
end

relieve()
local verdicts = settle_all()

-- --- claiming ------------------------------------------------------------------------------------

local claims, handed = {}, 0

local function earlier(one, other) return one[2] < other[2] end

-- `start_by` holds for a first attempt alone: what is tried again has started in time.
local function hand_out(id, token, attempt, losses, start_by)
  local at = handed * 6
  handed = handed + 1
  claims[at + 1] = id
  claims[at + 2] = token
  claims[at + 3] = tonumber(attempt) or 1
  claims[at + 4] = tonumber(losses) or 0
  claims[at + 5] = -1
  if start_by and claims[at + 3] == 1 then claims[at + 5] = math.max(0, (tonumber(start_by) or 0) - NOW) end
end

local function add_envelopes()
  if handed == 0 then return end
  local keys = {}
  for at = 1, handed * 6, 6 do keys[#keys + 1] = P(claims[at]) end
  for at, envelope in ipairs(call('MGET', unpack(keys))) do claims[at * 6] = envelope or '' end
end

-- The batch of this request, if it was handed out before.
local function batch_again(last)
  if not last then return false end
  local made_by, low, high = string.match(last, '^(.*) (%d+) (%d+)$')
  if made_by ~= request then return false end
  low, high = tonumber(low), tonumber(high)
  local owned, batch = call('HGETALL', O), {}
  for at = 1, #owned, 2 do
    local token = tonumber(owned[at + 1])
    if low <= token and token <= high then batch[#batch + 1] = {owned[at], token} end
  end
  table.sort(batch, earlier)
  for _, each in ipairs(batch) do
    local h = call('HMGET', T(each[1]), 'a', 'lo', 'k', 'sb')
    if h[1] then
      hand_out(each[1], S(each[2]), h[1], h[2], h[4])
      local kind = sound({k = h[3]}).k
      free[kind] = free[kind] - 1
    end
  end
  return true
end

-- The first `most` ready ones of a kind, taken out: the plain ones and the others, by their place.
local function take(kind, most, taken)
  if most <= 0 then return end
  local plain = call('ZRANGE', B .. ':w' .. kind, 0, most - 1, 'WITHSCORES')
  local other = call('ZRANGE', B .. ':r' .. kind, 0, most - 1, 'WITHSCORES')
  local p, o = 1, 1
  while (p + o) / 2 - 1 < most and (plain[p] or other[o]) do
    local from, at = plain, p
    if not plain[p] or (other[o] and tonumber(other[o + 1]) < tonumber(plain[p + 1])) then
      from, at = other, o
      o = o + 2
      call('ZREM', B .. ':wx', from[at])
    else
      p = p + 2
    end
    taken[#taken + 1] = {from[at], tonumber(from[at + 1]), kind}
  end
  if p > 1 then call('ZREMRANGEBYRANK', B .. ':w' .. kind, 0, (p - 1) / 2 - 1) end
  if o > 1 then call('ZREMRANGEBYRANK', B .. ':r' .. kind, 0, (o - 1) / 2 - 1) end
end

-- Up to MOST of both kinds; if both ask for so many, each has its half.
local function batch()
  local taken = {}
  local asked = math.min(room.a, math.max(MOST - room.s, MOST / 2))
  take('a', asked, taken)
  local got = #taken
  take('s', math.min(room.s, MOST - got), taken)
  if got == asked then take('a', math.min(room.a - got, MOST - #taken), taken) end
  table.sort(taken, earlier)
  return taken
end

-- A task that was lost with its owner may have caused that. An owner claims GROUP such tasks at
-- most within SHY, or as long as the first one of them is held; and one whose next loss is its last
-- without any other. Else what ran beside a task that kills its owners would be given up with it.
-- `suspects` are the last ones of this owner: the first one, when it was claimed, how many there
-- are, and whether the first one had to be alone.
local suspects

local function last_suspects()
  local said = call('HGET', STATE, 'su:' .. owner) or ''
  local first, since, count, alone = string.match(said, '^(.*) (%d+) (%d+) (%d)$')
  if not first then return {age = SHY, count = 0} end
  local age = NOW - tonumber(since)
  if age < 0 then age = SHY end -- the clock went back
  return {first = first, since = since, age = age, count = tonumber(count), alone = alone == '1',
          held = call('HEXISTS', O, first) == 1}
end

-- Gives for how many ms a task with so many losses is not claimed; 0 if it is, and then notes it.
local function wait_of_suspect(id, losses, most)
  losses = tonumber(losses) or 0
  if losses == 0 then return 0 end
  local alone = losses + 1 >= (tonumber(most) or 1)
  suspects = suspects or last_suspects()
  local joins = false
  if suspects.age < SHY and id ~= suspects.first then
    joins = not alone and not suspects.alone and suspects.count < GROUP
    local over = not suspects.held and (suspects.alone or not alone)
    -- Looked at less often the longer it takes.
    if not joins and not over then
      return math.min(math.max(APART, suspects.age), SHY - suspects.age)
    end
  end
  if joins then
    suspects.count = suspects.count + 1
  else
    suspects = {first = id, since = MOMENT, age = 0, count = 1, alone = alone, held = true}
  end
  call('HSET', STATE, 'su:' .. owner, suspects.first .. ' ' .. suspects.since .. ' ' ..
       S(suspects.count) .. ' ' .. (suspects.alone and '1' or '0'))
  return 0
end

-- Tokens rise, whatever the clock does. Gives whether it has put any task off.
local function claim(taken, last_token)
  local first = math.max(US, last_token + 1)
  local token = first - 1
  local running, owned, put_off = {}, {}, false
  for _, each in ipairs(taken) do
    local id = each[1]
    local h = call('HMGET', T(id), 'q', 'a', 'lo', 'sb', 'ml')
    local q = h[1] and sound({q = h[1]}).q
    local wait = q and wait_of_suspect(id, h[3], h[5]) or 0
    if h[4] then call('ZREM', B .. ':tl', id) end
    if h[4] and (tonumber(h[4]) or 0) <= NOW and (tonumber(h[2]) or 0) == 0 then
      finish(id, load(id), 'F', nil, '', 'expired')
    elseif wait > 0 then
      put_off = true
      postpone(id, {k = each[3], q = q}, NOW + wait)
    elseif q then
      token = token + 1
      local said, attempt = S(token), (tonumber(h[2]) or 0) + 1
      call('HSET', T(id), 'st', 'P', 'ow', owner, 't', said, 'a', S(attempt), 'b', MOMENT)
      running[#running + 1] = q
      running[#running + 1] = id
      owned[#owned + 1] = id
      owned[#owned + 1] = said
      hand_out(id, said, attempt, h[3], h[4])
      free[each[3]] = free[each[3]] - 1
    end
  end
  if token < first then return put_off end
  call('ZADD', B .. ':run', unpack(running))
  call('HSET', O, unpack(owned))
  call('HSET', STATE, 'tok', S(token), 'b:' .. owner, request .. ' ' .. S(first) .. ' ' .. S(token))
  return put_off
end

local function park(kind, left)
  if free[kind] <= 0 or left > 0 then return 0 end
  call('ZADD', B .. ':id' .. kind, S(-free[kind]), owner)
  return 1
end

local deadline = call('ZSCORE', B .. ':own', owner)
if not deadline or tonumber(deadline) < 0 then
  close()
  return {1, verdicts, {}, -1, 0, 0, 0, 0}
end
call('ZADD', B .. ':own', S(NOW + lease), owner)
call('ZREM', B .. ':ids', owner)
call('ZREM', B .. ':ida', owner)

local left = {s = 0, a = 0}
local due = promote(128)
expire(128)
local state = call('HMGET', STATE, 'tok', 'paused', 'b:' .. owner)
if not batch_again(state[3]) and not state[2] then
  local taken = batch()
  if #taken > 0 and claim(taken, tonumber(state[1] or 0)) then due = next_due() end
end
add_envelopes()
if not state[2] then left = {s = ready('s'), a = ready('a')} end
local parked = {park('s', left.s), park('a', left.a)}
fresh = {}
close(state[2])
wake('s', left.s) -- what is left is for others
wake('a', left.a)
return {0, verdicts, claims, due, left.s, left.a, parked[1], parked[2]}
