-- Keeps how far running tasks are, and tells those who watch. ARGV: owner, then: id token blob ...
-- Gives how many were kept: only those that this owner holds under these tokens.
-- Sent again: keeps and tells the same again.

relieve()
local O = B .. ':o:' .. ARGV[1]
local kept = 0
for at = 2, #ARGV, 3 do
  local id, token, blob = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if call('HGET', O, id) == token then
    kept = kept + 1
    call('HSET', T(id), 'pg', blob)
    local watching = call('HGET', T(id), 'w')
    if watching then
      for channel in string.gmatch(watching, '%+([^ ]+)') do
        publish(channel, 'p' .. id .. '\n' .. blob)
      end
    end
  end
end
return kept
