-- A page of records in order of submission. ARGV: what after offset limit, then names of indexes
-- Gives records of these indexes with a sequence above `after`, but the first `offset` of them;
-- fewer than there are if they are large: go on after the last one's sequence. Ids whose record
-- was deleted by hand are passed over.
-- `what`: whole, as show() gives them, each with its sequence; heads: sequence and time of submission in turn, flat.

local what = ARGV[1]
local after, offset, limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local indexes = {}
for at = 5, #ARGV do indexes[#indexes + 1] = B .. ':' .. ARGV[at] end

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

-- Ids in order, each with its sequence.
local function page(from, most)
  local found = {}
  for _, index in ipairs(indexes) do
    local part = call('ZRANGEBYSCORE', index, S(from), '+inf', 'WITHSCORES', 'LIMIT', 0, most)
    for at = 1, #part, 2 do found[#found + 1] = {tonumber(part[at + 1]), part[at]} end
  end
  table.sort(found, earlier)
  for at = #found, most + 1, -1 do found[at] = nil end
  return found
end

local records, size = {}, 0

local function add_head(each)
  records[#records + 1] = S(each[1])
  records[#records + 1] = call('HGET', T(each[2]), 'c') or ''
end

local function add_whole(each)
  local record, bytes = show(each[2])
  if record then
    record[4] = each[1] -- where it is listed: what stands in the record may be damaged
    records[#records + 1] = record
  end
  size = size + bytes
end

sweep_if_allowed()
local from = first()
if not from or limit <= 0 then return {} end
local add = what == 'heads' and add_head or add_whole
repeat
  local found = page(from, limit)
  for _, each in ipairs(found) do
    if size > REPLY then break end
    add(each)
    from = each[1] + 1
  end
until #records > 0 or #found == 0
return records
