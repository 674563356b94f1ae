-- Forgets a record that is not running; who waits for it is told that it was cancelled.
-- ARGV: id running (1: whatever its status, for a storage that has no owners)
-- Gives 1, or 0: unknown, or running.
-- Sent again: 0, for it is gone.

local id = ARGV[1]
local r = load(id)
if not r.st then return 0 end
if r.st == 'P' then
  if ARGV[2] ~= '1' then return 0 end
  call('ZREM', B .. ':run', id)
elseif r.st == 'W' then
  leave(id, r)
  free_key(id, r)
  if r.w then tell_end(r.w, 'X', id, '') end
end
if r.ow then call('HDEL', B .. ':o:' .. r.ow, id) end
forget(id, r.st)
return 1
