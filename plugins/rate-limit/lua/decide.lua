-- Takes from every limit, or from none.
-- KEYS: the limits. ARGV: id, lifetime of reservations, 1 to take or 0 to look; then for each limit
--   kind, span, step, max, unit, take, least (to be reserved beside it), most (that may be)
-- Answers for each limit: 1 if it agrees, what is left, ms until it is whole, ms until there is more, ms to wait, reserved;
-- at the end the moment.
local id, lifetime, taking = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local meters, agreed = {}, true
for i, key in ipairs(KEYS) do
  local at = 4 + (i - 1) * 8
  local meter = read(key, at)
  meter.take, meter.least, meter.most = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6]), tonumber(ARGV[at + 7])
  meter.need = math.max(1, meter.take + meter.least)
  -- A bucket's level has a fraction, which may have lost its last digit.
  meter.agrees = meter.left - meter.held + 0.000001 >= meter.need
  agreed = agreed and meter.agrees
  meters[i] = meter
end
local answer = {}
for i, meter in ipairs(meters) do
  local reserved = 0
  if agreed and taking then
    if meter.take > 0 then charge(meter, meter.take) end
    reserved = math.min(meter.most, math.max(meter.least, math.floor(meter.left - meter.held + 0.000001)))
    if reserved > 0 then hold(meter, id, reserved, lifetime) end
    if meter.take > 0 or reserved > 0 then save(meter, lifetime) end
  end
  local whole, more = resets(meter)
  local left = math.floor(meter.left - meter.held + 0.000001)
  local at = (i - 1) * 6
  answer[at + 1], answer[at + 2], answer[at + 3] = meter.agrees and 1 or 0, left, math.min(whole, LONGEST)
  answer[at + 4], answer[at + 6] = math.min(more, LONGEST), reserved
  answer[at + 5] = meter.agrees and 0 or math.min(wait(meter, meter.need), LONGEST)
end
answer[#answer + 1] = now
return answer
