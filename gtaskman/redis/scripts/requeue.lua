-- Sends failed tasks back to wait, after all others, as if new. ARGV: request, then ids
-- Gives how many; not those that are not failed, or whose unique key another holds.
-- Sent again: a record knows the request that sent it back.

local request = ARGV[1]

local function key_is_free(id, r)
  if not r.u then return true end
  return call('HSETNX', B .. ':u', r.u, id) == 1
end

local function send_back(id)
  local r = load(id)
  if r.st and r.rv == request then return 1 end
  if r.st ~= 'F' or not key_is_free(id, r) then return 0 end
  local key = T(id)
  call('ZREM', B .. ':xF', id)
  call('ZREM', B .. ':ex', id)
  call('UNLINK', E(id))
  call('HDEL', key, 'a', 'lo', 'b', 'f', 'y', 't')
  r.pl = number()
  call('HSET', key, 'st', 'W', 'rv', request, 'pl', r.pl)
  if r.tt then
    local start_by = S(NOW + (tonumber(r.tt) or 0))
    call('HSET', key, 'sb', start_by)
    call('ZADD', B .. ':tl', start_by, id)
  end
  place(id, r)
  return 1
end

local sent = 0
for at = 2, #ARGV do sent = sent + send_back(ARGV[at]) end
close()
return sent
