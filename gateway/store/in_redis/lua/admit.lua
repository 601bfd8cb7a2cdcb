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
local FIXED = 2
local ASKED = 5
local count = #KEYS - 1
local fixed = { unpack_numbers(doubles(FIXED + 6 * count), ARGV[2]) }
local asked = { unpack_numbers(doubles(ASKED + 2 * count), ARGV[4]) }
local slack_ms, step_ms = fixed[1], fixed[2]
local likely, most, least, enough = asked[2], asked[3], asked[4], asked[5]
local step = floor(now / step_ms)

local ahead_ms = now - asked[1]
if ahead_ms > slack_ms or -ahead_ms > slack_ms then
  return { -1, now }
end

-- Read and judge.
-- Tables that have their size from the start, as to grow takes longer than to fill. Until the end the reply has in place
-- of what is used the room that is left.
local counters = { false, false, false, false }
local verdict = { 1, now, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
local shares
local granted, is_raised = most, false
local stored = count > 0 and stored_from(2, count + 1)
local at = FIXED
for number = 1, count do
  local kind, first, second = fixed[at + 1], fixed[at + 5], fixed[at + 6]
  if kind == QUOTA and (now < first or second <= now) then
    return { -1, now }
  end
  local counter, held = current(KEYS[number + 1], stored[number], kind, first, second, step)
  if counter.raised then
    fixed[at + 4], is_raised = fixed[at + 4] + counter.raised, true
  end
  local used, scale = counter[USED], counter[SCALE]
  if scale ~= 1 then
    local rest = used % scale
    used = (used - rest) / scale + (rest > 0 and 1 or 0)
  end
  local room = fixed[at + 4] - used - held
  local per_output = asked[ASKED + count + number]
  if kind == QUOTA and per_output > 0 then
    -- What a quota with so much room grants, as core/reservation.py has it.
    local left = floor((room - asked[ASKED + number]) * 1000000 / per_output)
    local share = min(left, max(enough, floor(left / OUTPUT_SHARE)))
    if fixed[at + 2] == 1 then
      granted = min(granted, share)
    else
      shares = shares or {}
      shares[number] = share
    end
  end
  counters[number], verdict[number * 3 + 2], verdict[number * 3 + 3] = counter, room, held
  at = at + 6
end
if likely > granted then
  likely = granted
end

verdict[3] = granted
at = FIXED
for number = 1, count do
  local need, per_output = asked[ASKED + number], asked[ASKED + count + number]
  if per_output > 0 then
    if fixed[at + 1] == QUOTA then
      need = need + ceil(least * per_output / 1000000)
    else
      need = max(need, min(fixed[at + 4], need + ceil(likely * per_output / 1000000)))
    end
  end
  if need > verdict[number * 3 + 2] and fixed[at + 2] == 1 then
    verdict[1] = 0
  end
  verdict[number * 3 + 1] = need
  at = at + 6
end

-- Write.
if verdict[1] == 1 then
  local record = string.format('%d %d', step + STEPS, granted)
  at = FIXED
  for number = 1, count do
    local counter, kind, per_output = counters[number], fixed[at + 1], asked[ASKED + count + number]
    local of_reply = number * 3
    local need = verdict[of_reply + 1]
    local borne, is_quota = need, kind == QUOTA and per_output > 0
    if is_quota then
      borne = asked[ASKED + number] + ceil(granted * per_output / 1000000)
    end
    local enforced = borne
    if fixed[at + 2] == 0 then
      if need > verdict[of_reply + 2] then
        borne = -1
      elseif is_quota then
        borne = asked[ASKED + number] + ceil(min(granted, shares[number]) * per_output / 1000000)
      end
    end
    if borne ~= enforced or counter.raised then
      record = record .. string.format(' %d %d', number + 1, borne)
    end
    if borne >= 0 then
      local held = verdict[of_reply + 3]
      if fixed[at + 3] == 1 then
        counter[USED] = counter[USED] + borne * counter[SCALE]
      else
        held = held + borne
        counter[LAST], verdict[of_reply + 3] = counter[LAST] + borne, held
      end
      write(KEYS[number + 1], counter, held, kind, fixed[at + 5], fixed[at + 6], step_ms)
    end
    verdict[of_reply + 1] = borne
    at = at + 6
  end
  call('HSET', KEYS[1], ARGV[3], record)
  if call('HLEN', KEYS[1]) == 1 then
    call('PEXPIRE', KEYS[1], ARGV[1])
  end
end

for number = 1, count do
  verdict[number * 3 + 2] = counters[number][USED]
end
if is_raised then
  verdict[1] = verdict[1] + 2
  for number = 1, count do
    verdict[3 + 3 * count + number] = counters[number].raised or 0
  end
end
return verdict
