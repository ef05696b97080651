-- Keeps reservations for another lifetime; one that has expired is made again, for its request is still open.
-- KEYS: the mark of what has been settled, then the limits. ARGV: id, lifetime; then for each limit
--   kind, span, step, max, unit, reserved
local id, lifetime = ARGV[1], tonumber(ARGV[2])
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
for i = 2, #KEYS do
  local at = 3 + (i - 2) * 6
  local meter = read(KEYS[i], at, true)
  local reserved = tonumber(ARGV[at + 5])
  if redis.call('ZSCORE', meter.key .. ':held', id .. ':' .. whole(reserved)) then meter.held = meter.held - reserved end
  hold(meter, id, reserved, lifetime)
  save(meter, lifetime)
end
return 1
