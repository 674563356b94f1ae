-- Sets for how long a finished record is kept from now on. ARGV: id keep_ms
-- Sent again: a little longer.

call('ZADD', B .. ':ex', 'XX', NOW + tonumber(ARGV[2]), ARGV[1])
return 1
