-- Admits a request to every limit that binds it and holds its charges, or changes nothing.
--
-- KEYS[1]    the request's record: a hash of reservation id to what counter.lua says
-- KEYS[2..]  the counters, one a charge
-- ARGV[1]    how long the record is kept, in milliseconds
-- ARGV[2]    numbers that are the same in each call:
--   how far the given time may be off; a call that comes later than this is not answered any more
--   length of a step of holds, in milliseconds
--   then six a charge: kind, 1 if it is enforced, 1 if it is used at once and not held, capacity, and the two terms of
--   its kind
-- ARGV[3]    reservation id
-- ARGV[4]    numbers of this request:
--   the store's time as the gateway knows it, in milliseconds
--   output that is likely, in tokens: rates hold it, up to a full bucket
--   output that is wanted at most: quotas hold as much of it as they grant
--   output that they must pay for at least
--   output that they grant, as far as they still pay for it, where an eighth of what they pay for is less
--   the fixed amount of each charge
--   of each charge what a token of output costs, in millionths of a unit
--
-- Returns {-1, now} where the gateway must ask again: its time is off, or a window is over.
-- Else {1 for admitted or 0 for refused, now, granted output}, then three a charge: the amount that it bears or would
-- have to bear, what is used (in parts), what is held. Those of a refusal are as they are, those of an admission as
-- they are with it. Where grants raise any of the limits the first number is 2 more, and what they add to each follows.
-- A shadow limit bears what it would bear if it were enforced: -1 says that it would have refused and
-- bears nothing, and of a quota it bears no more than that would have granted.

local OUTPUT_SHARE = 8
local FIXED, ASKED = 2, 5
local count = #KEYS - 1
local fixed = { unpack_numbers(doubles(FIXED + 6 * count), ARGV[2]) }
local asked = { unpack_numbers(doubles(ASKED + 2 * count), ARGV[4]) }
local step_ms = fixed[2]
local likely, most, least, enough = asked[2], asked[3], asked[4], asked[5]
local now = now_ms()
local step = floor(now / step_ms)
local last = step + STEPS

if abs(now - asked[1]) > fixed[1] then
  return { -1, now }
end

local function used(counter)
  if counter[2] == 1 then
    return counter[1]
  end
  local rest = counter[1] % counter[2]
  return (counter[1] - rest) / counter[2] + (rest > 0 and 1 or 0)
end

-- What a quota with so much room grants, as core/reservation.py has it.
local function output_share(room, amount, per_output)
  local left = floor((room - amount) * 1000000 / per_output)
  return min(left, max(enough, floor(left / OUTPUT_SHARE)))
end

-- Read and judge.
local counters, rooms, holding = {}, {}, {}
local granted, is_raised = most, false
local stored = count > 0 and stored_from(2) or {}
for number = 1, count do
  local at = FIXED + 6 * number - 6
  local kind, first, second = fixed[at + 1], fixed[at + 5], fixed[at + 6]
  if kind == QUOTA and (now < first or second <= now) then
    return { -1, now }
  end
  local counter = current(KEYS[number + 1], stored[number], kind, first, second, now, step)
  local held_now = held(counter)
  if counter.raised then
    fixed[at + 4], is_raised = fixed[at + 4] + counter.raised, true
  end
  local room = fixed[at + 4] - used(counter) - held_now
  local per_output = asked[ASKED + count + number]
  if kind == QUOTA and per_output > 0 and fixed[at + 2] == 1 then
    granted = min(granted, output_share(room, asked[ASKED + number], per_output))
  end
  counters[number], rooms[number], holding[number] = counter, room, held_now
end
likely = min(likely, granted)

local function amount(number, of_quota)
  local base, per_output, at = asked[ASKED + number], asked[ASKED + count + number], FIXED + 6 * number - 6
  if per_output == 0 then
    return base
  elseif fixed[at + 1] == QUOTA then
    return base + ceil(of_quota * per_output / 1000000)
  end
  return max(base, min(fixed[at + 4], base + ceil(likely * per_output / 1000000)))
end

local verdict = { 1, now, granted, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
for number = 1, count do
  local need = amount(number, least)
  if need > rooms[number] and fixed[FIXED + 6 * number - 4] == 1 then
    verdict[1] = 0
  end
  verdict[number * 3 + 1] = need
end

-- Write.
if verdict[1] == 1 then
  local record = last .. ' ' .. granted
  for number = 1, count do
    local counter, at = counters[number], FIXED + 6 * number - 6
    local enforced = amount(number, granted)
    local borne = enforced
    if fixed[at + 2] == 0 then
      local per_output = asked[ASKED + count + number]
      if verdict[number * 3 + 1] > rooms[number] then
        borne = -1
      elseif fixed[at + 1] == QUOTA and per_output > 0 then
        borne = amount(number, min(granted, output_share(rooms[number], asked[ASKED + number], per_output)))
      end
    end
    if borne ~= enforced or counter.raised then
      record = record .. ' ' .. number + 1 .. ' ' .. borne
    end
    if borne >= 0 then
      if fixed[at + 3] == 1 then
        counter[1] = counter[1] + borne * counter[2]
      else
        hold(counter, last, borne)
      end
      holding[number] = write(KEYS[number + 1], counter, fixed[at + 1], fixed[at + 5], fixed[at + 6], step_ms)
    end
    verdict[number * 3 + 1] = borne
  end
  call('HSET', KEYS[1], ARGV[3], record)
  if call('HLEN', KEYS[1]) == 1 then
    call('PEXPIRE', KEYS[1], ARGV[1])
  end
end

for number = 1, count do
  verdict[number * 3 + 2], verdict[number * 3 + 3] = counters[number][1], holding[number]
end
if is_raised then
  verdict[1] = verdict[1] + 2
  for number = 1, count do
    verdict[3 + 3 * count + number] = counters[number].raised or 0
  end
end
return verdict
