-- How every script reads, ages and writes a counter: this text is put in front of each of them.
--
-- Numbers are sent and stored as little-endian doubles, whole ones below 2^53, so that none is spelled out and read again.
-- A counter is one string of eleven, or of the first four where nothing is held, or of sixteen where something was
-- settled of a quota, and more where grants raise its limit:
--   1      what is used: units of a quota, parts of a unit of a rate
--   2      how many parts a unit has: the rate's scale, else 1
--   3      when it was last brought up to now, in milliseconds
--   4      when its key expires
--   5      the last step of the clock that is over; holds end together, at whole steps
--   6..11  what is held until the end of the 1st .. 6th step after that one
--   12     the highest part of the amount, in percent, for which a notification was made
--   13     when something was settled first in this window, in milliseconds; 0 where nothing was
--   14     when it was last, of which time the next two are
--   15     the sum of what was settled, which fades in hours
--   16     the same, which fades in days
--   17..   four for each grant, the first to end first: its id, what it adds to the limit, when it ends, and, of a rate,
--          the milliseconds in which the limit's amount flows back, else 0
-- From 12 on they are written in units of 2^-53: older gateways, which take them for holds, round them to nothing.
-- Its kind comes with two terms: a RATE's flow (parts given back in a millisecond) and scale, the first millisecond
-- of a QUOTA's window and the first after it, for LEASES 0 and 0.
--
-- Each call defines these functions again, which takes Redis about a twelfth of it: what few counters need is within the
-- function that needs it, and what ends or moves holds is in holds.lua.

local abs, ceil, floor, max, min = math.abs, math.ceil, math.floor, math.max, math.min
local call, pack, unpack_numbers = redis.call, struct.pack, struct.unpack
local RATE, QUOTA, LEASES = 0, 1, 2
local STEPS = 6
local LONG, SHORT, SHORT_SIZE = '<ddddddddddd', '<dddd', 32
local WITH_HISTORY, WITH_HISTORY_SIZE, HISTORY_UNIT = '<dddddddddddddddd', 128, 2 ^ -53
local STAMP, EXPIRY, OVER, FIRST, LAST = 3, 4, 5, 6, 11
local NOTED_PERCENT, SINCE, NOTED, HOURS, DAYS = 12, 13, 14, 15, 16
local TEN_YEARS_MS, SPARE_MS = 315576000000, 10000

local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + floor(time[2] / 1000)
end

-- The format of so many numbers.
local function doubles(count)
  return '<' .. string.rep('d', count)
end

-- Forgets the holds that have ended by now. Where the clock was set back, holds that would end later than any hold can
-- end with the last step instead.
local function age(counter, step)
  local over = step - counter[OVER]
  if over > 0 then
    for place = FIRST, LAST do
      counter[place] = place + over <= LAST and counter[place + over] or 0
    end
    counter[OVER] = step
  elseif over < 0 then
    for place = LAST - 1, FIRST, -1 do
      local amount, later = counter[place], min(LAST, place - over)
      counter[place] = 0
      counter[later] = counter[later] + amount
    end
    counter[OVER] = step
  end
end

-- The counter in the string, or a whole one where there is none. `grants` is nil where it has none, `raised` what they
-- add to the limit.
local function unpacked(packed, now, step)
  if not packed then
    return { 0, 1, now, 0, step, 0, 0, 0, 0, 0, 0 }
  end
  if #packed == SHORT_SIZE then
    local used, scale, stamp, expiry = unpack_numbers(SHORT, packed)
    return { used, scale, stamp, expiry, step, 0, 0, 0, 0, 0, 0 }
  end
  local counter = { unpack_numbers(#packed >= WITH_HISTORY_SIZE and WITH_HISTORY or LONG, packed) }
  if #packed > WITH_HISTORY_SIZE then
    local grants, cursor = {}, WITH_HISTORY_SIZE + 1
    while cursor <= #packed do
      local id, amount, ends, period
      id, amount, ends, period, cursor = unpack_numbers('<dddd', packed, cursor)
      grants[#grants + 1] = {
        id = id / HISTORY_UNIT, amount = amount / HISTORY_UNIT, ends = ends / HISTORY_UNIT, period = period / HISTORY_UNIT
      }
    end
    counter.grants = grants
  end
  age(counter, step)
  return counter
end

-- The strings stored at the keys from this one on, up to the last or to another one. MGET takes a key of another type
-- for none, and the counter would be written over what somebody else has there: GET ends the script with an error before
-- anything is written.
local function stored_from(first, last)
  local stored = call('MGET', unpack(KEYS, first, last or #KEYS))
  for number = 1, #stored do
    if not stored[number] then
      call('GET', KEYS[first + number - 1])
    end
  end
  return stored
end

local function held(counter)
  return counter[6] + counter[7] + counter[8] + counter[9] + counter[10] + counter[11]
end

-- Whether something was settled in this window.
local function has_history(counter)
  return (counter[SINCE] or 0) > 0
end

local function packed(counter, holding)
  if counter.grants then
    if not has_history(counter) then
      for place = NOTED_PERCENT, DAYS do
        counter[place] = 0
      end
    end
    local parts = { pack(WITH_HISTORY, unpack(counter, 1, DAYS)) }
    for _, grant in ipairs(counter.grants) do
      local id, amount, ends, period = grant.id, grant.amount, grant.ends, grant.period
      parts[#parts + 1] = pack(
        '<dddd', id * HISTORY_UNIT, amount * HISTORY_UNIT, ends * HISTORY_UNIT, period * HISTORY_UNIT
      )
    end
    return table.concat(parts)
  end
  if has_history(counter) then
    return pack(WITH_HISTORY, unpack(counter, 1, DAYS))
  end
  if holding > 0 then
    return pack(LONG, unpack(counter, 1, LAST))
  end
  return pack(SHORT, unpack(counter, 1, EXPIRY))
end

local function rescale(counter, new)
  local used, old = counter[1], counter[2]
  if old ~= new then
    counter[1] = floor(used / old) * new + floor((used % old * new + floor(old / 2)) / old)
    counter[2] = new
  end
end

-- Lets the grants end that are over by now, each when it ended. Returns the flow and the scale that a rate has then.
local function end_grants(counter, first, second, now)
  local grants = counter.grants

  -- What the grants of a rate add to it, and the flow and the scale that it has with that, as core/buckets.py has them.
  local function raised_pace()
    local raised, period = 0, grants[1].period
    for _, grant in ipairs(grants) do
      raised = raised + grant.amount
    end
    if period == 0 then
      return raised, first, second
    end
    local amount = first * (period / second) + raised
    local common, rest = amount, period
    while rest > 0 do
      common, rest = rest, common % rest
    end
    return raised, amount / common, period / common
  end

  while grants[1] and grants[1].ends <= now do
    local ended = grants[1]
    if ended.period > 0 then
      local _, flow, scale = raised_pace(grants, first, second)
      rescale(counter, scale)
      if ended.ends > counter[STAMP] then
        counter[1] = max(0, counter[1] - (ended.ends - counter[STAMP]) * flow)
        counter[STAMP] = ended.ends
      end
    end
    table.remove(grants, 1)
  end
  if not grants[1] then
    counter.grants, counter.raised = nil, nil
    return first, second
  end
  counter.raised, first, second = raised_pace(grants, first, second)
  return first, second
end

-- The counter at `key`, of which this string is stored, brought up to now. Where the clock was set back it is written
-- at once, as a refusal writes nothing: it counts from the new time on, or else it would neither refill nor let holds end
-- until the old one is back.
local function current(key, stored, kind, first, second, now, step)
  local counter = unpacked(stored, now, step)
  if counter.grants then
    first, second = end_grants(counter, first, second, now)
  end
  if kind == RATE then
    rescale(counter, second)
  end
  local elapsed = now - counter[STAMP]
  counter[STAMP] = now
  if elapsed < 0 then
    call('SET', key, packed(counter, held(counter)), 'KEEPTTL')
  elseif kind == RATE and elapsed > 0 then
    counter[1] = max(0, counter[1] - elapsed * first)
  end
  return counter
end

-- A hold that ends with `last` is in this sum: in the last one where the clock was set back since.
local function place_of(counter, last)
  return OVER + max(1, min(STEPS, last - counter[OVER]))
end

local function hold(counter, last, amount)
  local place = place_of(counter, last)
  counter[place] = counter[place] + amount
end

-- Writes the counter, which lives for so long at least. To set an expiry takes longer than all else about a write, so
-- it is set with some to spare, and left until it is too early.
local function keep(key, counter, holding, life_ms, spare_ms)
  if counter[STAMP] + life_ms <= counter[EXPIRY] then
    call('SET', key, packed(counter, holding), 'KEEPTTL')
    return
  end
  counter[EXPIRY] = counter[STAMP] + life_ms + spare_ms
  call('PSETEX', key, life_ms + spare_ms, packed(counter, holding))
end

-- A counter lives until it is whole again and no grant raises its limit, or until its window is over. Returns what it
-- holds.
local function write(key, counter, kind, first, second, step_ms)
  local holding = held(counter)
  if kind == QUOTA then
    local left_ms = second - counter[STAMP]
    if left_ms < TEN_YEARS_MS then
      keep(key, counter, holding, left_ms, 0)
    else
      keep(key, counter, holding, TEN_YEARS_MS, SPARE_MS)
    end
  else
    local whole_in_ms = kind == RATE and ceil(counter[1] / first) or 0
    local grants = counter.grants
    if grants then
      -- By the pace that is left when they have ended.
      whole_in_ms = kind == RATE and ceil(counter[1] / counter[2] * second / first) or 0
      whole_in_ms = max(whole_in_ms, grants[#grants].ends - counter[STAMP])
    end
    keep(key, counter, holding, max(whole_in_ms, holding > 0 and STEPS * step_ms or 0), SPARE_MS)
  end
  return holding
end
