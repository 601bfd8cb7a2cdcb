-- Lets the holds of living reservations last for another six steps.
--
-- KEYS[..]  the records and the counters that the arguments speak of, each once
-- ARGV[1]   how long a record is kept, in milliseconds
-- ARGV[2]   numbers: the length of a step of holds in milliseconds; then for each reservation the place of its record
--   among KEYS, the number of its holds, and three a hold: the place of its counter among KEYS, its kind, its amount
-- ARGV[3..] the reservations' ids, in the same order
--
-- Returns {number of reservations that were renewed, now}; one that is over or settled is left alone.

local step_ms, cursor = struct.unpack('<d', ARGV[2])
local now = now_ms()
local step = floor(now / step_ms)
local counters, kinds, renewed = {}, {}, 0

local function counter_at(place)
  if counters[place] == nil then
    local string = redis.call('GET', KEYS[place])
    counters[place] = string and unpacked(string, now, step)
  end
  return counters[place]
end

for number = 3, #ARGV do
  local record, holds
  record, holds, cursor = struct.unpack('<dd', ARGV[2], cursor)
  local last = tonumber(redis.call('HGET', KEYS[record], ARGV[number]) or '') or 0
  for _ = 1, holds do
    local place, kind, amount
    place, kind, amount, cursor = struct.unpack('<ddd', ARGV[2], cursor)
    local counter = last > step and counter_at(place)
    if counter then
      kinds[place] = kind
      release(counter, last, amount)
      hold(counter, step + STEPS, amount)
    end
  end
  if last > step then
    redis.call('HSET', KEYS[record], ARGV[number], step + STEPS)
    redis.call('PEXPIRE', KEYS[record], ARGV[1])
    renewed = renewed + 1
  end
end

for place, kind in pairs(kinds) do
  redis.call('SET', KEYS[place], packed(counters[place]), 'KEEPTTL')
  local life_ms = STEPS * step_ms + 1000
  if kind ~= QUOTA and redis.call('PTTL', KEYS[place]) < life_ms then
    redis.call('PEXPIRE', KEYS[place], life_ms)
  end
end
return { renewed, now }
