-- How every script reads, ages and writes a counter: this text stands before each of them.
--
-- Numbers travel and rest as little-endian doubles, whole ones below 2^53, so that none is spelled out and read again.
-- A counter is one string of ten, or of the first three where nothing is held:
--   1      what is used: units of a quota, parts of a unit of a rate
--   2      how many parts a unit has: the rate's scale, else 1
--   3      when it was last brought up to now, in milliseconds
--   4      the last step of the clock that is over; holds end together, at whole steps
--   5..10  what is held until the end of the 1st .. 6th step after that one
-- Its kind comes with two terms: a RATE's flow (parts given back in a millisecond) and scale, the first millisecond
-- of a QUOTA's window and the first after it, for LEASES 0 and 0.

local abs, ceil, floor, max, min = math.abs, math.ceil, math.floor, math.max, math.min
local call, pack, unpack_numbers = redis.call, struct.pack, struct.unpack
local RATE, QUOTA = 0, 1
local STEPS = 6
local LONG, SHORT, SHORT_SIZE = '<dddddddddd', '<ddd', 24
local TEN_YEARS_MS = 315576000000
local SETTLED = 's'

local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + floor(time[2] / 1000)
end

local function in_window(kind, first, second, now)
  return kind ~= QUOTA or (first <= now and now < second)
end

local function rescaled(used, old, new)
  return floor(used / old) * new + floor((used % old * new + floor(old / 2)) / old)
end

-- Forgets the holds that have ended by now.
local function age(counter, step)
  local over = step - counter[4]
  if over > 0 then
    for place = 5, 10 do
      counter[place] = place + over <= 10 and counter[place + over] or 0
    end
    counter[4] = step
  end
end

-- The counter in the string, or a whole one where there is none.
local function unpacked(packed, now, step)
  if not packed then
    return { 0, 1, now, step, 0, 0, 0, 0, 0, 0 }
  end
  if #packed == SHORT_SIZE then
    local used, scale, stamp = unpack_numbers(SHORT, packed)
    return { used, scale, stamp, step, 0, 0, 0, 0, 0, 0 }
  end
  local counter = { unpack_numbers(LONG, packed) }
  age(counter, step)
  return counter
end

local function held(counter)
  return counter[5] + counter[6] + counter[7] + counter[8] + counter[9] + counter[10]
end

local function packed(counter, holding)
  if holding > 0 then
    return pack(LONG, unpack(counter, 1, 10))
  end
  return pack(SHORT, counter[1], counter[2], counter[3])
end

-- The counter at `key`, brought up to now.
local function read(key, kind, first, second, now, step)
  local counter = unpacked(call('GET', key), now, step)
  if kind == RATE then
    if counter[2] ~= second then
      counter[1] = rescaled(counter[1], counter[2], second)
      counter[2] = second
    end
    local elapsed = now - counter[3]
    if elapsed > 0 then
      counter[1] = max(0, counter[1] - elapsed * first)
    end
  end
  if now > counter[3] then
    counter[3] = now
  end
  return counter
end

local function used(counter)
  local rest = counter[1] % counter[2]
  return (counter[1] - rest) / counter[2] + (rest > 0 and 1 or 0)
end

-- A record is "LAST GRANTED" while the reservation is open: its holds end with that step; 0 for any other.
local function last_of(record)
  return record and tonumber(string.match(record, '^%d+')) or 0
end

-- A hold that ends with `last` stands at this place; one that a clock set back would put before the first, at the first.
local function place_of(counter, last)
  return 4 + max(1, min(STEPS, last - counter[4]))
end

local function hold(counter, last, amount)
  local place = place_of(counter, last)
  counter[place] = counter[place] + amount
end

-- Gives nothing back where the hold has ended by itself.
local function release(counter, last, amount)
  if last > counter[4] then
    local place = place_of(counter, last)
    counter[place] = max(0, counter[place] - amount)
  end
end

-- A counter lives until it is whole again, or until its window is over. Returns what it holds.
local function write(key, counter, kind, first, second, step_ms)
  local holding = held(counter)
  local life_ms
  if kind == QUOTA then
    life_ms = min(second - counter[3], TEN_YEARS_MS)
  else
    life_ms = 1000 + max(kind == RATE and ceil(counter[1] / first) or 0, holding > 0 and STEPS * step_ms or 0)
  end
  call('PSETEX', key, life_ms, packed(counter, holding))
  return holding
end
