-- Lets the holds of running reservations last for another six steps, and takes those again that have ended meanwhile.
--
-- KEYS[..]  the records and the counters that the arguments speak of, each once
-- ARGV[1]   how long a record is kept, in milliseconds
-- ARGV[2]   numbers: the length of a step of holds in milliseconds; then for each reservation the place of its record
--   among KEYS, the number of its holds, and three a hold: the place of its counter among KEYS, its kind, its amount
-- ARGV[3..] the reservations' ids, in the same order
--
-- Returns {number of reservations that were renewed, now}; one that is settled or given back is left alone.

local _, _, keep, unpacked = counter_functions()
local release, held, last_of = hold_functions()
local step_ms, cursor = unpack_numbers('<d', ARGV[2])
local step = floor(now / step_ms)
local counters, kinds, renewed = {}, {}, 0

-- A quota's counter is gone once its window is over: nothing has to be held there any more.
local function counter_at(place, kind)
  if counters[place] == nil then
    local string = call('GET', KEYS[place])
    counters[place] = (string or kind ~= QUOTA) and unpacked(string, step)
  end
  return counters[place]
end

for number = 3, #ARGV do
  local record, holds
  record, holds, cursor = unpack_numbers('<dd', ARGV[2], cursor)
  local open = call('HGET', KEYS[record], ARGV[number])
  local last = last_of(open)
  for _ = 1, holds do
    local place, kind, amount
    place, kind, amount, cursor = unpack_numbers('<ddd', ARGV[2], cursor)
    local counter = last > 0 and counter_at(place, kind)
    if counter then
      kinds[place] = kind
      release(counter, last, amount)
      counter[LAST] = counter[LAST] + amount
    end
  end
  if last > 0 then
    call('HSET', KEYS[record], ARGV[number], (string.gsub(open, '^%d+', step + STEPS)))
    call('PEXPIRE', KEYS[record], ARGV[1])
    renewed = renewed + 1
  end
end

for place, kind in pairs(kinds) do
  -- Nothing flows back here, so the time of its last use stays; a quota keeps the end of its window.
  local counter = counters[place]
  local life_ms = kind == QUOTA and 0 or now - counter[STAMP] + STEPS * step_ms
  keep(KEYS[place], counter, held(counter), life_ms, SPARE_MS)
end
return { renewed, now }
