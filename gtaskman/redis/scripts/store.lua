-- Keeps a report in a storage.
-- ARGV: request, insert (1) or update (0), id status name kind revision keep_ms body created_ms
-- owner lease_ms; an owner '' holds nothing, and its open reports are never given up.
-- Gives 1, or 0: for an update, the task is unknown or has ended, or its report is no older.
-- Sent again: a record knows the request that wrote it last.

local request, insert = ARGV[1], ARGV[2] == '1'
local id, status, name, kind, revision, keep, body, created, owner, lease = unpack(ARGV, 3)
local OPEN = {W = 'wx', P = 'run'}

local function index(letter) return B .. ':' .. (OPEN[letter] or 'x' .. letter) end

local known = call('HMGET', T(id), 'st', 'rev', 'q', 'rq', 'ow', 'y')
local given_up = known[6] == 'gone' and known[5] == owner -- and yet its owner lives
if known[4] == request then return 1 end
if not insert then
  if not known[1] then return 0 end
  if not OPEN[known[1]] and not given_up then return 0 end
  if tonumber(known[2]) >= tonumber(revision) then return 0 end
end
if known[1] then call('ZREM', index(known[1]), id) end
if insert or given_up then
  call('ZREM', B .. ':ex', id)
  call('HDEL', T(id), 'y', 'f')
end
if known[5] then call('HDEL', B .. ':o:' .. known[5], id) end
local seq = insert and number() or known[3]
call('HSET', T(id), 'st', status, 'n', name, 'k', kind, 'q', seq, 'rev', revision,
     'rt', keep, 'rq', request, 'c', created, 'ow', owner)
call('SET', E(id), body)
call('ZADD', index(status), seq, id)
if not OPEN[status] then
  call('ZADD', B .. ':ex', NOW + math.max(tonumber(keep), KEPT), id)
  sweep(2)
elseif owner ~= '' then
  call('HSET', B .. ':o:' .. owner, id, '1')
  call('ZADD', B .. ':own', NOW + tonumber(lease), owner)
end
return 1
