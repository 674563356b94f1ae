-- A page of records in order of submission. ARGV: after offset limit, then names of indexes
-- Gives records of these indexes with a sequence above `after`, but the first `offset` of them;
-- fewer than there are if they are large: go on after the last one's sequence.

local after, offset, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local indexes = {}
for at = 4, #ARGV do indexes[#indexes + 1] = B .. ':' .. ARGV[at] end

local function up_to(last)
  local found = 0
  for _, index in ipairs(indexes) do
    found = found + call('ZCOUNT', index, '(' .. S(after), last)
  end
  return found
end

-- The sequence of the first one of the page, found by halving: nobody walks over what is left out.
local function first()
  if offset == 0 then return after + 1 end
  local low, high = after, tonumber(call('HGET', STATE, 'seq') or 0)
  if up_to(high) <= offset then return nil end
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if up_to(middle) > offset then high = middle else low = middle end
  end
  return high
end

local function earlier(one, other) return one[1] < other[1] end

sweep(128)
local from = first()
if not from or limit <= 0 then return {} end
local page = {}
for _, index in ipairs(indexes) do
  local part = call('ZRANGEBYSCORE', index, from, '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
  for at = 1, #part, 2 do page[#page + 1] = {tonumber(part[at + 1]), part[at]} end
end
table.sort(page, earlier)
local records, size = {}, 0
for at = 1, math.min(limit, #page) do
  if size > REPLY then break end
  local record, bytes = show(page[at][2])
  if record then records[#records + 1] = record end
  size = size + bytes
end
return records
