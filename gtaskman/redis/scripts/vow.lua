-- Marks a running record as one that is never handed out again; who sent it did not know.
-- ARGV: owner id token. Gives 1, or 0 if that owner does not hold it under that token.
-- Sent again: marks it again.

relieve()
if call('HGET', B .. ':o:' .. ARGV[1], ARGV[2]) ~= ARGV[3] then return 0 end
call('HSET', T(ARGV[2]), 'on', '1')
return 1
