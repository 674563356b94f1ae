-- Pauses a queue: it hands out nothing; or lets it go on. ARGV: 1 or 0
-- Sent again: the same.

if ARGV[1] == '1' then
  call('HSET', STATE, 'paused', '1')
else
  call('HDEL', STATE, 'paused')
  fresh = {s = ready('s'), a = ready('a')}
  close()
end
return 1
