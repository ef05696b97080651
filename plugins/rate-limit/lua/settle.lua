-- Gives back what was reserved and charges what was used: once, however often it is asked.
-- KEYS: the mark of what has been settled, then the limits. ARGV: id, lifetime of reservations, lifetime of the mark;
-- then for each limit
--   kind, span, step, max, unit, reserved (-1: whatever it was), used, 1 if debts are carried
-- Answers for each limit how far this has taken it beyond its maximum; nothing when it was settled before.
local id, lifetime = ARGV[1], tonumber(ARGV[2])
if not redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[3]) then return {} end

-- What stands under the id, for whoever was not told how much it got.
local function reservedFor(key)
  for _, member in ipairs(redis.call('ZRANGE', key .. ':held', 0, -1)) do
    local amount = member:sub(1, #id + 1) == id .. ':' and member:match(':(%d+)$')
    if amount then return tonumber(amount) end
  end
  return 0
end

local answer = {}
for i = 2, #KEYS do
  local at = 4 + (i - 2) * 8
  local meter = read(KEYS[i], at, true)
  local reserved, used = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  if reserved < 0 then reserved = reservedFor(meter.key) end
  if reserved > 0 and redis.call('ZREM', meter.key .. ':held', id .. ':' .. whole(reserved)) == 1 then
    meter.held = meter.held - reserved
  end
  if ARGV[at + 7] ~= '1' then used = math.min(used, math.max(0, math.floor(meter.left))) end
  local before = math.max(0, -meter.left)
  if used ~= 0 then charge(meter, used) end
  answer[i - 1] = math.ceil(math.max(0, -meter.left) - before)
  if used ~= 0 or reserved > 0 then save(meter, lifetime) end
end
return answer
