-- Registers a channel with tasks that have not ended, and gives how all of them stand.
-- ARGV: channel progress (1 or 0), then ids
-- Gives records as show() does, 0 for an unknown id; fewer than asked for if they are large.
-- Sent again: the channel is there once.

local channel, progress = short(ARGV[1]), ARGV[2] == '1'
local MANY = 1024 -- bytes of channels, above which those without a listener are dropped,
local FEW = 16 -- of which so many are looked at with each new one: what one call takes is bounded

local function full(name)
  if string.sub(name, 1, 1) == '+' then name = string.sub(name, 2) end
  return string.sub(name, 1, 1) == ':' and B .. name or name
end

local function has(known, name) return string.find(' ' .. known .. ' ', ' ' .. name .. ' ', 1, true) end

-- Drops those of the first FEW that nobody listens to, and moves the others behind all others.
local function drop_unheard(names)
  local first = {}
  for at = 1, math.min(FEW, #names) do first[at] = full(names[at]) end
  local heard = call('PUBSUB', 'NUMSUB', unpack(first))
  local left = {}
  for at = #first + 1, #names do left[#left + 1] = names[at] end
  for at = 1, #first do
    if heard[2 * at] > 0 then left[#left + 1] = names[at] end
  end
  return left
end

local function register(id)
  local known = call('HGET', T(id), 'w') or ''
  if has(known, '+' .. channel) or (not progress and has(known, channel)) then return end
  local names = {}
  for name in string.gmatch(known, '[^ ]+') do
    if name ~= channel then names[#names + 1] = name end
  end
  if #known > MANY then names = drop_unheard(names) end
  names[#names + 1] = (progress and '+' or '') .. channel
  call('HSET', T(id), 'w', table.concat(names, ' '))
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
