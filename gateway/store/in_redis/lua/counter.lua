-- How every script reads, ages and writes a counter: this text is put in front of each of them.
--
-- Numbers are sent and stored as little-endian doubles, whole ones below 2^53, so that none is spelled out and read again.
-- A counter is one string of eleven, or of the first four where nothing is held, which may also be eleven, or of sixteen
-- where something was settled of a quota, and more where grants raise its limit:
--   1      what is used: units of a quota, parts of a unit of a rate
--   2      how many parts a unit has: the rate's scale, else 1
--   3      when it was last brought up to now, in milliseconds; of what does not flow back it may be an earlier time
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
-- Redis runs a script from its first line at each call, so each call defines its functions again, and every local that a
-- function takes from outside costs it again, too. So there are few, within one that a script calls where it needs them,
-- and what few counters need is within the branch that needs it; what ends or moves holds is in holds.lua. admit.lua and
-- settle.lua bring most counters up to date by themselves, in locals, and take these functions for the others.

local call, floor, unpack_numbers = redis.call, math.floor, struct.unpack
local RATE = 0
local QUOTA = 1
local LEASES = 2
local STEPS = 6
local SHORT = '<dddd'
local SHORT_SIZE = 32
local LONG = '<ddddddddddd'
local LONG_SIZE = 88
local WITH_HISTORY = '<dddddddddddddddd'
local WITH_HISTORY_SIZE = 128
local HISTORY_UNIT = 2 ^ -53
local USED = 1
local SCALE = 2
local STAMP = 3
local EXPIRY = 4
local OVER = 5
local FIRST = 6
local LAST = 11
local NOTED_PERCENT = 12
local SINCE = 13
local NOTED = 14
local HOURS = 15
local DAYS = 16
local TEN_YEARS_MS = 315576000000
local SPARE_MS = 10000

local clock = call('TIME')
local now = clock[1] * 1000 + floor(clock[2] / 1000)

-- The functions that read, age and write counters.
local function counter_functions()
  local call, pack, unpack_numbers = redis.call, struct.pack, struct.unpack
  local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min

  -- The counter in the string, or a whole one where there is none, without the holds that have ended by now, and what it
  -- holds. `grants` is nil where it has none, `raised` what they add to the limit.
  local function unpacked(stored, step)
    if not stored then
      return { 0, 1, now, 0, step, 0, 0, 0, 0, 0, 0 }, 0
    end
    local size = #stored
    if size == SHORT_SIZE then
      local used, scale, stamp, expiry = unpack_numbers(SHORT, stored)
      return { used, scale, stamp, expiry, step, 0, 0, 0, 0, 0, 0 }, 0
    end
    local counter = { unpack_numbers(size < WITH_HISTORY_SIZE and LONG or WITH_HISTORY, stored) }
    if size > WITH_HISTORY_SIZE then
      local grants, cursor = {}, WITH_HISTORY_SIZE + 1
      while cursor <= size do
        local id, amount, ends, period
        id, amount, ends, period, cursor = unpack_numbers('<dddd', stored, cursor)
        grants[#grants + 1] = {
          id = id / HISTORY_UNIT, amount = amount / HISTORY_UNIT, ends = ends / HISTORY_UNIT, period = period / HISTORY_UNIT
        }
      end
      counter.grants, counter[DAYS + 1] = grants, nil
    end
    local over = step - counter[OVER]
    if over > 0 then
      for place = FIRST, LAST do
        counter[place] = place + over <= LAST and counter[place + over] or 0
      end
      counter[OVER] = step
    elseif over < 0 then
      -- The clock was set back: holds that would end later than any hold can, end with the last step instead.
      for place = LAST - 1, FIRST, -1 do
        local amount, later = counter[place], min(LAST, place - over)
        counter[place] = 0
        counter[later] = counter[later] + amount
      end
      counter[OVER] = step
    end
    return counter, counter[6] + counter[7] + counter[8] + counter[9] + counter[10] + counter[11]
  end

  -- Writes the counter, which holds so much and lives for so long at least. To set an expiry takes longer than all else
  -- about a write, so it is set with some to spare, and left until it is too early, or where no life is given. A string of
  -- the same size is written in place, which takes half as long: behind its numbers a counter has where reading ended.
  local function keep(key, counter, holding, life_ms, spare_ms)
    local expiry = life_ms and counter[STAMP] + life_ms or 0
    local is_late = expiry > counter[EXPIRY]
    if is_late then
      counter[EXPIRY] = expiry + spare_ms
    end
    local has_history, in_place, packed = (counter[SINCE] or 0) > 0, false
    if counter.grants then
      if not has_history then
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
      packed = table.concat(parts)
    elseif has_history then
      packed, in_place = pack(WITH_HISTORY, unpack(counter, 1, DAYS)), counter[DAYS + 1]
    elseif holding > 0 then
      packed, in_place = pack(LONG, unpack(counter, 1, LAST)), counter[LAST + 1]
    else
      packed = pack(SHORT, unpack(counter, 1, EXPIRY))
    end
    if is_late then
      call('PSETEX', key, counter[EXPIRY] - now, packed)
    elseif in_place == #packed + 1 then
      call('SETRANGE', key, '0', packed)
    else
      call('SET', key, packed, 'KEEPTTL')
    end
  end

  -- The counter at `key`, of which this string is stored, brought up to now, and what it holds. Where the clock was set
  -- back it is written at once, as a refusal writes nothing: it counts from the new time on, or else it would neither
  -- refill nor let holds end until the old one is back.
  local function current(key, stored, kind, first, second, step)
    local counter, holding = unpacked(stored, step)
    local grants = counter.grants

    if grants or kind == RATE and counter[SCALE] ~= second then
      local function rescale(new)
        local used, old = counter[USED], counter[SCALE]
        if old ~= new then
          counter[USED] = floor(used / old) * new + floor((used % old * new + floor(old / 2)) / old)
          counter[SCALE] = new
        end
      end

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

      -- The grants that are over by now end, each when it ended.
      while grants and grants[1] and grants[1].ends <= now do
        local ended = grants[1]
        if ended.period > 0 then
          local _, flow, scale = raised_pace()
          rescale(scale)
          if ended.ends > counter[STAMP] then
            counter[USED] = max(0, counter[USED] - (ended.ends - counter[STAMP]) * flow)
            counter[STAMP] = ended.ends
          end
        end
        table.remove(grants, 1)
      end
      if grants and grants[1] then
        counter.raised, first, second = raised_pace()
      else
        counter.grants = nil
      end
      if kind == RATE then
        rescale(second)
      end
    end

    local elapsed = now - counter[STAMP]
    counter[STAMP] = now
    if elapsed < 0 then
      keep(key, counter, holding)
    elseif kind == RATE and elapsed > 0 then
      local used = counter[USED] - elapsed * first
      counter[USED] = used > 0 and used or 0
    end
    return counter, holding
  end

  -- A counter lives until it is whole again and no grant raises its limit, or until its window is over.
  local function write(key, counter, holding, kind, first, second, step_ms)
    if kind == QUOTA then
      local left_ms = second - counter[STAMP]
      if left_ms < TEN_YEARS_MS then
        keep(key, counter, holding, left_ms, 0)
      else
        keep(key, counter, holding, TEN_YEARS_MS, SPARE_MS)
      end
      return
    end
    local life_ms, grants = kind == RATE and ceil(counter[USED] / first) or 0, counter.grants
    if grants then
      -- By the pace that is left when they have ended.
      life_ms = kind == RATE and ceil(counter[USED] / counter[SCALE] * second / first) or 0
      life_ms = max(life_ms, grants[#grants].ends - counter[STAMP])
    end
    if holding > 0 and life_ms < STEPS * step_ms then
      life_ms = STEPS * step_ms
    end
    keep(key, counter, holding, life_ms, SPARE_MS)
  end

  return current, write, keep, unpacked
end
