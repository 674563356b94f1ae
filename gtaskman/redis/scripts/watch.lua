-- Registers a channel with tasks that have not ended, and gives how all of them stand.
-- ARGV: channel progress (1 or 0), then ids
-- Gives records as show() does, 0 for an unknown id; fewer than asked for if they are large.
-- Sent again: the channel is there once.

local channel, progress = short(ARGV[1]), ARGV[2] == '1'
local MANY = 1024 -- bytes of channels, above which those without a listener are dropped

local function full(name) return string.sub(name, 1, 1) == ':' and B .. name or name end

local function heard(name) return call('PUBSUB', 'NUMSUB', full(name))[2] > 0 end

local function register(id)
  local others, wanted = {}, progress
  local known = call('HGET', T(id), 'w') or ''
  for flag, name in string.gmatch(known, '(%+?)([^ ]+)') do
    if name == channel then
      wanted = wanted or flag == '+'
    elseif #known < MANY or heard(name) then
      others[#others + 1] = flag .. name
    end
  end
  others[#others + 1] = (wanted and '+' or '') .. channel
  local all = table.concat(others, ' ')
  if all ~= known then call('HSET', T(id), 'w', all) end
end

local records, size = {}, 0
for at = 3, #ARGV do
  if size > REPLY then break end
  local id = ARGV[at]
  local status = call('HGET', T(id), 'st')
  if status == 'W' or status == 'P' then register(id) end
  local record, bytes = show(id)
  records[#records + 1] = record or 0
  size = size + bytes
end
return records
