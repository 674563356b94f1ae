-- The prelude of every script, textually before it. The keys are told in README.md.
--
-- A script is sent again when its reply was lost, so each of them gives the same answer, and
-- changes nothing more, when it is run a second time with the same arguments.
-- KEYS[1] is the base; all other keys begin with it, and so with its hash tag: one slot.

local call = redis.call
local B = KEYS[1]
local STATE = B .. ':st'
local LEVEL = 8796093022208 -- 2^43: what one step of priority weighs against the sequence
local KEPT = 10000 -- ms that a finished record is kept at least: a replayed enqueue must find it
local LONG = 8192 -- bytes of an end that still travel in a message
local REPLY = 1048576 -- bytes of records in one reply, after which the rest is asked for again

-- Only the server's clock counts, nobody else's.
local time = call('TIME')
local US = tonumber(time[1]) * 1000000 + tonumber(time[2])
local NOW = math.floor(US / 1000)

-- A whole number as text. Numbers given to call() are written as floats, which takes longer.
local function S(number) return string.format('%d', number) end

local MOMENT = S(NOW)

local function T(id) return B .. ':t:' .. id end
local function P(id) return B .. ':p:' .. id end
local function E(id) return B .. ':e:' .. id end

-- What a script has to do for each of many records is gathered here and done by close(), at once:
-- most of a script's time goes into its calls.
local totals = {} -- name -> how many more
local fresh = {} -- kind -> how many became ready: owners to be woken
local listed = {} -- index -> scores and ids
local bodies = {} -- keys and values
local useless = {} -- keys

local function count(name, by) totals[name] = (totals[name] or 0) + (by or 1) end

-- A server out of memory refuses what would take more, but for a script that has written before:
-- what takes work off the server begins with this.
local function relieve() call('HDEL', STATE, 'none') end

local function number() return call('HINCRBY', STATE, 'seq', 1) end

-- Puts in what a script reckons with and another program has removed or spoilt: one damaged record
-- must not stop a script that works on many.
local function sound(r)
  if not tonumber(r.q) then r.q = '0' end
  if not tonumber(r.rt) then r.rt = '0' end
  if r.sb and not tonumber(r.sb) then r.sb = '0' end
  if r.k ~= 's' and r.k ~= 'a' then r.k = 's' end
  return r
end

-- Adds to a number in a record; one that is none counts as 0.
local function add_to(id, field, by)
  local number = redis.pcall('HINCRBY', T(id), field, by)
  if type(number) == 'number' then return number end
  call('HSET', T(id), field, S(math.max(by, 0)))
  return math.max(by, 0)
end

-- All fields of a record; none of them if there is none.
local function load(id)
  local flat = call('HGETALL', T(id))
  local r = {}
  for at = 1, #flat, 2 do r[flat[at]] = flat[at + 1] end
  return r.st and sound(r) or r
end

-- What record() in Python takes: {id, fields, body}, and its size in bytes.
local function show(id)
  local fields = call('HGETALL', T(id))
  if #fields == 0 then return false, 0 end
  local body = call('GET', E(id)) or ''
  return {id, fields, body}, #body
end

-- --- telling those who wait ----------------------------------------------------------------------

-- A channel is kept without the base where it has it; a '+' before it asks for progress as well.
local function short(channel)
  if string.sub(channel, 1, #B + 1) == B .. ':' then return string.sub(channel, #B + 1) end
  return channel
end

-- Gives how many heard it. Comes last in what it tells of, when the writes cannot be undone: so a
-- server that denies the user this channel fails no script; what was missed is asked for later.
local function publish(channel, message)
  if string.sub(channel, 1, 1) == ':' then channel = B .. channel end
  local heard = redis.pcall('PUBLISH', channel, message)
  return type(heard) == 'number' and heard or 0, type(heard) == 'table'
end

local function tell(channels, message)
  for channel in string.gmatch(channels, '[^ ]+') do
    if string.sub(channel, 1, 1) == '+' then channel = string.sub(channel, 2) end
    publish(channel, message)
  end
end

local function tell_end(channels, letter, id, body)
  if body == '' or #body > LONG then body = '!' end
  tell(channels, letter .. id .. '\n' .. body)
end

-- --- waking owners -------------------------------------------------------------------------------

local function ready(kind)
  return call('ZCARD', B .. ':w' .. kind) + call('ZCARD', B .. ':r' .. kind)
end

-- Wakes parked owners, those with most room first, until there is room for `need`. One to whom
-- nobody listens is dead, or about to come back by itself: the next.
local function wake(kind, need)
  local message
  for _ = 1, 32 do
    if need <= 0 then return end
    local parked = call('ZPOPMIN', B .. ':id' .. kind)
    if not parked[1] then return end
    message = message or ('w ' .. S(ready('s')) .. ' ' .. S(ready('a')))
    local heard, denied = publish(':m:' .. parked[1], message)
    if denied then -- it stays parked, for those who may wake it
      call('ZADD', B .. ':id' .. kind, parked[2], parked[1])
      return
    end
    if heard > 0 then need = need + tonumber(parked[2]) end -- the score is the room, below zero
  end
end

local function list(index, score, id)
  local members = listed[index]
  if not members then
    members = {}
    listed[index] = members
  end
  members[#members + 1] = score
  members[#members + 1] = id
end

-- `paused`: whether the queue is, if the script knows.
local function close(paused)
  for index, members in pairs(listed) do call('ZADD', B .. ':' .. index, unpack(members)) end
  if #bodies > 0 then call('MSET', unpack(bodies)) end
  if #useless > 0 then call('UNLINK', unpack(useless)) end
  for name, by in pairs(totals) do call('HINCRBY', STATE, name, by) end
  if not next(fresh) then return end
  if paused == nil then paused = call('HGET', STATE, 'paused') end
  if not paused then
    for kind, need in pairs(fresh) do wake(kind, need) end
  end
end

-- --- waiting -------------------------------------------------------------------------------------
-- Guards against records that are not there: a key deleted by hand shall stop nobody.

-- Makes a waiting record ready, at its place.
local function place(id, r)
  local seq, priority = tonumber(r.q), tonumber(r.pr or 0) or 0
  local at = tonumber(r.pl or seq) or seq
  fresh[r.k] = (fresh[r.k] or 0) + 1
  if priority == 0 and at == seq then
    call('ZADD', B .. ':w' .. r.k, r.q, id)
  else
    call('ZADD', B .. ':wx', r.q, id)
    call('ZADD', B .. ':r' .. r.k, S(at - priority * LEVEL), id)
  end
end

-- Lets a waiting record wait until it is due. Somebody must know if it is the next: their timer.
local function postpone(id, r, due)
  call('ZADD', B .. ':wx', r.q, id)
  call('ZADD', B .. ':dl', due, id)
  if call('ZRANGE', B .. ':dl', 0, 0)[1] == id then fresh[r.k] = fresh[r.k] or 1 end
end

-- Takes a record out of whatever it waits in.
local function leave(id, r)
  if call('ZREM', B .. ':w' .. r.k, id) == 0 then
    call('ZREM', B .. ':wx', id)
    if call('ZREM', B .. ':r' .. r.k, id) == 0 then call('ZREM', B .. ':dl', id) end
  end
  if r.sb then call('ZREM', B .. ':tl', id) end
end

local function next_due()
  local first = call('ZRANGE', B .. ':dl', 0, 0, 'WITHSCORES')
  if not first[2] then return -1 end
  return math.max(0, tonumber(first[2]) - NOW)
end

-- Makes ready what is due; gives ms until the next is, or -1.
local function promote(limit)
  local wait = next_due()
  if wait ~= 0 then return wait end
  local due = call('ZRANGEBYSCORE', B .. ':dl', '-inf', NOW, 'LIMIT', 0, limit)
  call('ZREM', B .. ':dl', unpack(due))
  call('ZREM', B .. ':wx', unpack(due))
  for _, id in ipairs(due) do
    local h = call('HMGET', T(id), 'k', 'q', 'pl', 'pr')
    if h[1] then
      local r = sound({k = h[1], q = h[2], pl = h[3] or nil, pr = h[4] or nil})
      if r.pl == '0' then -- it tries again: after all others
        r.pl = number()
        call('HSET', T(id), 'pl', r.pl)
      end
      place(id, r)
    end
  end
  return next_due()
end


-- --- running, and back ---------------------------------------------------------------------------

local function release(owner, ids)
  if #ids == 0 then return end
  call('HDEL', B .. ':o:' .. owner, unpack(ids))
  call('SREM', B .. ':cx:' .. owner, unpack(ids))
  call('ZREM', B .. ':run', unpack(ids))
end

-- Back to its place, as if it had never been claimed; claimed again after `delay` ms at the
-- earliest, if that is given. It must still start in time.
local function refund(id, r, token, delay)
  local attempt = add_to(id, 'a', -1)
  call('HSET', T(id), 'st', 'W', 'lt', token)
  call('HDEL', T(id), 'ow', 'pg', 'b')
  if r.sb and attempt == 0 then call('ZADD', B .. ':tl', r.sb, id) end
  if delay and delay > 0 then
    postpone(id, r, NOW + delay)
  else
    place(id, r)
  end
end

-- --- the end -------------------------------------------------------------------------------------

local function free_key(id, r)
  if r.u and call('HGET', B .. ':u', r.u) == id then call('HDEL', B .. ':u', r.u) end
end

-- The last transition of a record that is in no index any more. `body` is what its owner told of
-- the end, '' if it ends here; `why` says why, then. A failed one keeps its envelope: it may be
-- sent back.
local function finish(id, r, letter, token, body, why)
  free_key(id, r)
  local key = T(id)
  if token then
    call('HSET', key, 'st', letter, 'f', MOMENT, 'lt', token)
  else
    call('HSET', key, 'st', letter, 'f', MOMENT)
  end
  if why then call('HSET', key, 'y', why) end
  if r.w or r.x or r.pg or r.pl or r.sb then call('HDEL', key, 'w', 'x', 'pg', 'pl', 'sb') end
  if body ~= '' then
    bodies[#bodies + 1] = E(id)
    bodies[#bodies + 1] = body
  end
  if letter ~= 'F' then useless[#useless + 1] = P(id) end
  list('x' .. letter, r.q, id)
  list('ex', S(NOW + math.max(tonumber(r.rt), KEPT)), id)
  count(letter)
  if r.w then tell_end(r.w, letter, id, body) end
end

-- Fails what had not started in time.
local function expire(limit)
  local late = call('ZRANGEBYSCORE', B .. ':tl', '-inf', NOW, 'LIMIT', 0, limit)
  for _, id in ipairs(late) do
    local r = load(id)
    if r.st then
      leave(id, r)
      finish(id, r, 'F', nil, '', 'expired')
    else
      call('ZREM', B .. ':tl', id)
    end
  end
end

local function forget(id, letter)
  call('ZREM', B .. ':x' .. letter, id)
  call('ZREM', B .. ':ex', id)
  call('UNLINK', T(id), P(id), E(id))
end

-- Forgets finished records that were kept long enough; gives how many.
local function sweep(limit)
  local over = call('ZRANGEBYSCORE', B .. ':ex', '-inf', NOW, 'LIMIT', 0, limit)
  if #over == 0 then return 0 end
  call('ZREM', B .. ':ex', unpack(over))
  local keys = {}
  for _, id in ipairs(over) do
    keys[#keys + 1] = T(id)
    keys[#keys + 1] = P(id)
    keys[#keys + 1] = E(id)
  end
  call('UNLINK', unpack(keys))
  for _, letter in ipairs({'C', 'F', 'X'}) do call('ZREM', B .. ':x' .. letter, unpack(over)) end
  return #over
end

-- The same for scripts that only read, so that nobody sees such records longer. A server that
-- refuses writes can be read all the same.
local function sweep_if_allowed() pcall(sweep, 128) end
