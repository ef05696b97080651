-- What a limit has used and what is reserved of it, in one hash, with up to two more keys beside it:
--   KEY      used (fixed, sliding) or level (bucket), since (window, slice or moment), held; kind, span, step, max, unit for people
--   KEY:log  sliding: what was used in which slice, oldest first, each as `slice:amount`
--   KEY:held reservations, `id:amount`, by the moment when they expire
-- Amounts are whole numbers. Times are milliseconds of this Redis: no gateway's clock is asked.
local CLOCK = redis.call('TIME')
local now = CLOCK[1] * 1000 + math.floor(CLOCK[2] / 1000)
local DAY = 86400000
-- However large a debt is.
local LONGEST = 3650 * DAY

local function whole(number)
  return string.format('%.0f', number)
end

-- Day of the month, from 0 (after Howard Hinnant's civil_from_days).
local function dayOfMonth(days)
  local z = days + 719468
  local day = z % 146097
  local year = math.floor((day - math.floor(day / 1460) + math.floor(day / 36524) - math.floor(day / 146096)) / 365)
  day = day - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  return day - math.floor((153 * math.floor((5 * day + 2) / 153) + 2) / 5)
end

-- The window of UTC that a moment lies in: where it starts and ends.
local function windowAt(moment, span)
  if span ~= 'month' then
    local start = moment - moment % span
    return start, start + span
  end
  local today = math.floor(moment / DAY)
  local first = today - dayOfMonth(today)
  local later = first + 31
  return first * DAY, (later - dayOfMonth(later)) * DAY
end

local load = {}

-- What was used beyond the limit is carried into the windows that follow.
function load.fixed(meter)
  local start, stop = windowAt(now, meter.span)
  if meter.since and meter.since < start then
    local length = meter.span == 'month' and 2629746000 or meter.span
    local ended = math.max(1, math.floor((start - meter.since) / length + 0.5))
    meter.used = math.max(0, meter.used - ended * meter.max)
  end
  -- A clock that was set back (after a failover) must not open a window twice.
  meter.since = math.max(meter.since or start, start)
  meter.stop = meter.since + (stop - start)
  meter.left = meter.max - meter.used
end

-- An amount counts until its whole slice is older than the span: late by a slice, never early.
function load.sliding(meter)
  meter.slices = math.ceil((meter.span + meter.step - 1) / meter.step)
  meter.slice = math.max(math.floor(now / meter.step), meter.since or 0)
  local gone = 0
  while true do
    local oldest = redis.call('LINDEX', meter.key .. ':log', 0)
    if not oldest then
      gone, meter.oldest = meter.used, nil
      break
    end
    local slice, amount = oldest:match('^(%d+):(%d+)$')
    meter.oldest = tonumber(slice)
    if meter.oldest > meter.slice - meter.slices then break end
    redis.call('LPOP', meter.key .. ':log')
    gone = gone + amount
  end
  if gone > 0 then
    meter.used = meter.used - gone
    redis.call('HSET', meter.key, 'used', meter.used)
  end
  meter.left = meter.max - meter.used
end

-- Fills continuously, `step` in each `span`, up to `max`.
function load.bucket(meter)
  local passed = math.max(0, now - (meter.since or now))
  meter.left = math.min(meter.max, (meter.level or meter.max) + passed * meter.step / meter.span)
  meter.since = math.max(now, meter.since or now)
end

function load.leases(meter)
  meter.left = meter.max
end

-- Forgets the reservations that have expired.
local function expire(meter)
  local expired = redis.call('ZRANGEBYSCORE', meter.key .. ':held', '-inf', now)
  for _, member in ipairs(expired) do meter.held = meter.held - member:match(':(%d+)$') end
  if #expired > 0 then redis.call('ZREMRANGEBYSCORE', meter.key .. ':held', '-inf', now) end
  if redis.call('EXISTS', meter.key .. ':held') == 0 then meter.held = 0 end
  if #expired > 0 then redis.call('HSET', meter.key, 'held', meter.held) end
end

-- What was used counts on when the config gives a limit another window or algorithm, up to the new maximum: while two
-- configs are at work, neither may wipe what the other has counted. Of another unit nothing is known.
local function carry(meter, stored)
  local held = stored[9] == meter.unit and tonumber(stored[4]) or 0
  local before, used = tonumber(stored[8]), tonumber(stored[1]) or 0
  if stored[5] == 'bucket' then used = before - (tonumber(stored[2]) or before) end
  used = stored[9] == meter.unit and math.max(0, math.min(math.ceil(used), meter.max)) or 0
  redis.call('DEL', meter.key, meter.key .. ':log')
  if held == 0 then redis.call('DEL', meter.key .. ':held') end
  if meter.kind == 'sliding' and used > 0 then
    redis.call('RPUSH', meter.key .. ':log', whole(math.floor(now / meter.step)) .. ':' .. whole(used))
  end
  return { used, meter.max - used, meter.kind == 'sliding' and math.floor(now / meter.step), held }
end

local save

-- What was begun under an old config ends under the new one: with `adopts` the limit is taken as it stands.
local function read(key, at, adopts)
  local kind, span, step, max = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local stored = redis.call('HMGET', key, 'used', 'level', 'since', 'held', 'kind', 'span', 'step', 'max', 'unit')
  local same = stored[5] == kind and stored[6] == span and (kind ~= 'sliding' or stored[7] == step)
  local changed = stored[5] and not same
  if changed and adopts then
    kind, span, step, max = stored[5], stored[6], stored[7], stored[8]
  end
  local meter = { key = key, kind = kind, span = tonumber(span) or span, unit = ARGV[at + 4] }
  meter.step, meter.max = tonumber(step), tonumber(max)
  if changed and not adopts then stored = carry(meter, stored) end
  meter.used, meter.level = tonumber(stored[1]) or 0, tonumber(stored[2])
  meter.since, meter.held = tonumber(stored[3]), tonumber(stored[4]) or 0
  meter.described = stored[8] == max and stored[7] == step
  load[meter.kind](meter)
  if meter.held > 0 then expire(meter) end
  if changed and not adopts then
    save(meter, tonumber(ARGV[2]))
    meter.described = true
  end
  return meter
end

local add = {}

function add.fixed(meter, amount)
  meter.used = meter.used + amount
end

function add.sliding(meter, amount)
  meter.used = meter.used + amount
  if amount <= 0 then return end
  local log, slice = meter.key .. ':log', whole(meter.slice)
  local last = redis.call('LINDEX', log, -1)
  local lastSlice, lastAmount = (last or ''):match('^(%d+):(%d+)$')
  if lastSlice == slice then
    redis.call('LSET', log, -1, slice .. ':' .. whole(lastAmount + amount))
  else
    redis.call('RPUSH', log, slice .. ':' .. whole(amount))
  end
  meter.since = meter.slice
  meter.oldest = meter.oldest or meter.slice
end

function add.bucket() end

-- Of open answers nothing is used up.
local function charge(meter, amount)
  if meter.kind == 'leases' then return end
  add[meter.kind](meter, amount)
  meter.left = meter.left - amount
end

local function hold(meter, id, amount, lifetime)
  redis.call('ZADD', meter.key .. ':held', now + lifetime, id .. ':' .. whole(amount))
  meter.held = meter.held + amount
end

-- Milliseconds until nothing is used any more, and until there is at least one more than now.
local function resets(meter)
  if meter.kind == 'leases' or meter.left >= meter.max then return 0, 0 end
  if meter.kind == 'bucket' then
    local each = meter.span / meter.step
    return math.ceil((meter.max - meter.left) * each), math.ceil((math.floor(meter.left) + 1 - meter.left) * each)
  end
  if meter.kind == 'sliding' then
    local function leaves(slice) return (slice + meter.slices) * meter.step - now end
    return leaves(meter.since), leaves(meter.oldest)
  end
  local length = meter.stop - meter.since
  return meter.stop - now + (math.max(1, math.ceil(meter.used / meter.max)) - 1) * length, meter.stop - now
end

-- Milliseconds until `need` can be had if nobody else takes it; -1 when it never can.
local function wait(meter, need)
  local missing = need - (meter.left - meter.held)
  if need > meter.max then return -1 end
  if meter.kind == 'bucket' then return math.ceil(missing * meter.span / meter.step) end
  if meter.kind == 'fixed' and meter.used > 0 then
    local windows = math.max(1, math.ceil((meter.used + need - meter.max) / meter.max))
    return meter.stop - now + (windows - 1) * (meter.stop - meter.since)
  end
  if meter.kind == 'sliding' then
    for _, entry in ipairs(redis.call('LRANGE', meter.key .. ':log', 0, -1)) do
      local slice, amount = entry:match('^(%d+):(%d+)$')
      missing = missing - amount
      if missing <= 0 then return (slice + meter.slices) * meter.step - now end
    end
  end
  -- Only what is reserved stands in the way, and that may be given back at any moment.
  return 1000
end

-- Writes a meter. It lives until it equals a new one and none of its reservations can be left.
function save(meter, lifetime)
  local life = math.min(resets(meter), LONGEST) + lifetime + 1000
  redis.call('HSET', meter.key, 'used', meter.used, 'level', meter.left, 'since', meter.since or 0, 'held', meter.held)
  if not meter.described then
    redis.call('HSET', meter.key, 'kind', meter.kind, 'span', meter.span, 'step', whole(meter.step), 'max',
      whole(meter.max), 'unit', meter.unit)
  end
  redis.call('PEXPIRE', meter.key, life)
  if meter.kind == 'sliding' then redis.call('PEXPIRE', meter.key .. ':log', life) end
  if meter.held > 0 then redis.call('PEXPIRE', meter.key .. ':held', life) end
end
