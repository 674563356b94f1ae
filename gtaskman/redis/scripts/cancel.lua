-- Cancels a waiting task, or asks the owner of a running one to. ARGV: id reason
-- Gives the status letter after it: X cancelled; P its owner is asked; C F it had ended; or nil.
-- Sent again: asks again, with the reason that was given first.

local id, reason = ARGV[1], ARGV[2]
local r = load(id)
if not r.st then return false end
relieve()
if r.st == 'W' then
  leave(id, r)
  finish(id, r, 'X', nil, '', reason)
  close()
  return 'X'
end
if r.st == 'P' then
  reason = r.x or reason
  call('HSET', T(id), 'x', reason)
  call('SADD', B .. ':cx:' .. r.ow, id)
  publish(':m:' .. r.ow, 'x ' .. r.t .. ' ' .. id .. '\n' .. reason)
end
return r.st
