-- The clean end of an owner: what it still owns goes back, not counted, and its keys go. What was
-- to be handed out once may have run, and fails.
-- ARGV: owner. Gives how many it still owns: above 0, call again.
-- Sent again: goes on, or finds nothing.

local owner = ARGV[1]
local O = B .. ':o:' .. owner

local function give_back(id)
  local r = load(id)
  if not r.st then return end
  if r.x then
    finish(id, r, 'X', r.t, '', r.x)
  elseif r.on then
    finish(id, r, 'F', r.t, '', 'lost')
  else
    refund(id, r, r.t)
  end
end

relieve()
call('ZREM', B .. ':ids', owner)
call('ZREM', B .. ':ida', owner)
call('ZADD', B .. ':own', 'XX', -1, owner) -- nothing is claimed for it meanwhile
local ids = call('HRANDFIELD', O, 256)
release(owner, ids)
for _, id in ipairs(ids) do give_back(id) end
local left = call('HLEN', O)
if left == 0 then
  call('ZREM', B .. ':own', owner)
  call('HDEL', STATE, 'b:' .. owner, 'su:' .. owner)
  call('HDEL', B .. ':ol', owner)
  call('DEL', B .. ':cx:' .. owner)
end
close()
return left
