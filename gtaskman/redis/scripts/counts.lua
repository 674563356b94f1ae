-- How many records stand how. No ARGV.
-- Gives waiting, and of these ready sync, ready async, delayed; running, completed, failed,
-- cancelled; in all so far: queued, completed, failed, cancelled; and whether it is paused.

sweep_if_allowed()
local state = call('HMGET', STATE, 'queued', 'C', 'F', 'X', 'paused')
local function size(index) return call('ZCARD', B .. ':' .. index) end

local counts = {size('ws') + size('wa') + size('wx'), ready('s'), ready('a')}
for _, name in ipairs({'dl', 'run', 'xC', 'xF', 'xX'}) do
  counts[#counts + 1] = size(name)
end
for at = 1, 5 do counts[#counts + 1] = tonumber(state[at] or 0) end
return counts
