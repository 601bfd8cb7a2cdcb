-- Admits a request to every limit that binds it and holds its charges, or changes nothing.
--
-- KEYS[1]    the request's record: a hash of reservation id to what counter.lua says
-- KEYS[2..]  the counters, one a charge
-- ARGV[1]    reservation id
-- ARGV[2]    how long the record is kept, in milliseconds
-- ARGV[3]    numbers, seven of the request:
--   the store's time as the gateway knows it, in milliseconds
--   how far that may be off; a call that comes later than this is not answered any more
--   length of a step of holds, in milliseconds
--   output that is likely, in tokens: rates hold it, up to a full bucket
--   output that is wanted at most: quotas hold as much of it as they grant
--   output that they must pay for at least
--   output that they grant, as far as they still pay for it, where an eighth of what they pay for is less
-- then eight a charge:
--   kind, 1 if it is enforced, 1 if it is used at once and not held, fixed amount, millionths of a unit for a token of
--   output, capacity, and the two terms of its kind
--
-- Returns {-1, now} where the gateway must ask again: its time is off, or a window is over.
-- Else {1 for admitted or 0 for refused, now, granted output}, then three a charge: the amount that it bears or would
-- have to bear, what is used (in parts), what is held. Those of a refusal are as they are, those of an admission as
-- they are with it. A shadow limit bears what it would bear if it were enforced: -1 says that it would have refused and
-- bears nothing, and of a quota it bears no more than that would have granted.

local OUTPUT_SHARE = 8
local at, slack, step_ms, likely, most, least, enough, cursor = unpack_numbers('<ddddddd', ARGV[3])
local now = now_ms()
local step = floor(now / step_ms)
local last = step + STEPS

if abs(now - at) > slack then
  return { -1, now }
end

-- What a quota with so much room grants, as core/reservation.py has it.
local function output_share(room, fixed, per_output)
  local left = floor((room - fixed) * 1000000 / per_output)
  return min(left, max(enough, floor(left / OUTPUT_SHARE)))
end

-- Read and judge.
local charges, counters, rooms, holding = {}, {}, {}, {}
local granted = most
for number = 2, #KEYS do
  local charge = { unpack_numbers('<dddddddd', ARGV[3], cursor) }
  local kind, enforced, fixed, per_output = charge[1], charge[2], charge[4], charge[5]
  if not in_window(kind, charge[7], charge[8], now) then
    return { -1, now }
  end
  cursor = charge[9]
  local counter = read(KEYS[number], kind, charge[7], charge[8], now, step)
  holding[number] = held(counter)
  local room = charge[6] - used(counter) - holding[number]
  if kind == QUOTA and enforced == 1 and per_output > 0 then
    granted = min(granted, output_share(room, fixed, per_output))
  end
  charges[number], counters[number], rooms[number] = charge, counter, room
end
likely = min(likely, granted)

local function amount(charge, of_quota)
  if charge[1] == QUOTA then
    return charge[4] + ceil(of_quota * charge[5] / 1000000)
  end
  return max(charge[4], min(charge[6], charge[4] + ceil(likely * charge[5] / 1000000)))
end

local verdict = { 1, now, granted, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
for number = 2, #KEYS do
  local charge = charges[number]
  local need = amount(charge, least)
  if need > rooms[number] and charge[2] == 1 then
    verdict[1] = 0
  end
  verdict[number * 3 - 2] = need
end

-- Write.
if verdict[1] == 1 then
  local record = last .. ' ' .. granted
  for number = 2, #KEYS do
    local charge, counter = charges[number], counters[number]
    local borne = amount(charge, granted)
    if charge[2] == 0 then
      local enforced = borne
      if verdict[number * 3 - 2] > rooms[number] then
        borne = -1
      elseif charge[1] == QUOTA and charge[5] > 0 then
        borne = amount(charge, min(granted, output_share(rooms[number], charge[4], charge[5])))
      end
      if borne ~= enforced then
        record = record .. ' ' .. number .. ' ' .. borne
      end
    end
    if borne >= 0 then
      if charge[3] == 1 then
        counter[1] = counter[1] + borne * counter[2]
      else
        hold(counter, last, borne)
      end
      holding[number] = write(KEYS[number], counter, charge[1], charge[7], charge[8], step_ms)
    end
    verdict[number * 3 - 2] = borne
  end
  call('HSET', KEYS[1], ARGV[1], record)
  if call('HLEN', KEYS[1]) == 1 then
    call('PEXPIRE', KEYS[1], ARGV[2])
  end
end

for number = 2, #KEYS do
  verdict[number * 3 - 1], verdict[number * 3] = counters[number][1], holding[number]
end
return verdict
