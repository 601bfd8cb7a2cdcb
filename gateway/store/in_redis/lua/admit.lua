-- Admits a request to every limit that binds it and holds its charges, or changes nothing.
--
-- KEYS[1]    the request's record: a hash of reservation id to what counter.lua says
-- KEYS[2..]  the counters, one a charge
-- ARGV[1]    reservation id
-- ARGV[2]    whole numbers in MessagePack, one behind the other, first those that are the same in each call:
--   how long the record is kept, in milliseconds
--   how far the given time may be off; a call that comes later than this is not answered any more
--   length of a step of holds, in milliseconds
--   then six a charge: kind, 1 if it is enforced, 1 if it is used at once and not held, capacity, and the two terms of
--   its kind
--   and those of this request:
--   the store's time as the gateway knows it, in milliseconds
--   output that is likely, in tokens: rates hold it, up to a full bucket
--   output that is wanted at most: quotas hold as much of it as they grant
--   output that they must pay for at least
--   output that they grant, as far as they still pay for it, where an eighth of what they pay for is less
--   the fixed amount of each charge
--   of each charge what a token of output costs, in millionths of a unit
--
-- Returns {-1, now} where the gateway must ask again: its time is off, or a window is over.
-- Else, as a list in MessagePack, {1 for admitted or 0 for refused, now, granted output}, then three a charge: the amount
-- that it bears or would have to bear, what is used (in parts), what is held. Those of a refusal are as they are, those of
-- an admission as they are with it. Where grants raise any of the limits the first number is 2 more, and what they add to
-- each follows. A shadow limit bears what it would bear if it were enforced: -1 says that it would have refused and bears
-- nothing, and of a quota it bears no more than that would have granted.

local OUTPUT_SHARE = 8
local FIXED = 3
local OF_A_CHARGE = 6
local ASKED = 5
-- Where in a counter's string its last hold begins.
local LAST_AT = '80'
-- Of a counter that is read here: how many steps were over since it was written.
local PASSED = 12

local keys, min, ceil, pack = KEYS, math.min, math.ceil, struct.pack
local count = #keys - 1
local given = { cmsgpack.unpack(ARGV[2]) }
local slack_ms, step_ms, asked = given[2], given[3], FIXED + OF_A_CHARGE * count
local likely, most, least, enough = given[asked + 2], given[asked + 3], given[asked + 4], given[asked + 5]
local step = floor(now / step_ms)

local ahead_ms = now - given[asked + 1]
if ahead_ms > slack_ms or -ahead_ms > slack_ms then
  return { -1, now }
end

-- Read and judge.
-- Tables that have their size from the start, as to grow takes longer than to fill.
local counters = { false, false, false, false }
local verdict = { 1, now, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
-- By the number of a charge: whether the functions of counter.lua have read its counter, whether as a shadow limit it
-- would have refused, and the output that it would have granted as one.
local unusual, overruled, shares
local current, write
local granted, is_raised = most, false
-- MGET takes a key of another type for none, and the counter would be written over what somebody else has there: GET ends
-- the script with an error before anything is written.
local stored = count > 0 and call('MGET', unpack(keys, 2))
-- Again where quotas grant less than is likely, as rates hold no more than that.
repeat
  if likely > granted then
    likely = granted
  end
  verdict[1], overruled = 1, nil
  local at = FIXED
  for number = 1, count do
    local kind, capacity, first, second = given[at + 1], given[at + 4], given[at + 5], given[at + 6]
    if kind == QUOTA and (now < first or second <= now) then
      return { -1, now }
    end
    local written, size, counter, held = stored[number], 0, nil, 0
    local used, scale, stamp, expiry, over = 0, kind == RATE and second or 1, now, 0, step
    local hold1, hold2, hold3, hold4, hold5, hold6 = 0, 0, 0, 0, 0, 0
    if written then
      size = #written
      if size == SHORT_SIZE then
        used, scale, stamp, expiry = unpack_numbers(SHORT, written)
      else
        used, scale, stamp, expiry, over, hold1, hold2, hold3, hold4, hold5, hold6 = unpack_numbers(LONG, written)
      end
    else
      call('GET', keys[number + 1])
    end
    if size > WITH_HISTORY_SIZE or stamp > now or over > step or kind == RATE and scale ~= second then
      -- Grants raise its limit, its rate is another by now, or the clock was set back.
      if not current then
        current, write = counter_functions()
        unusual = {}
      end
      counter, held = current(keys[number + 1], written, kind, first, second, step)
      unusual[number], used, scale = true, counter[USED], counter[SCALE]
      if counter.raised then
        capacity, is_raised = capacity + counter.raised, true
      end
    else
      local passed = step - over
      for _ = 1, passed < STEPS and passed or STEPS do
        hold1, hold2, hold3, hold4, hold5, hold6 = hold2, hold3, hold4, hold5, hold6, 0
      end
      held = hold1 + hold2 + hold3 + hold4 + hold5 + hold6
      if kind == RATE then
        used = used - (now - stamp) * first
        if used < 0 then
          used = 0
        end
      end
      counter = { used, scale, now, expiry, step, hold1, hold2, hold3, hold4, hold5, hold6, passed }
    end
    local room = capacity - used - held
    if scale ~= 1 then
      local rest = used % scale
      room = capacity - (used - rest) / scale - (rest > 0 and 1 or 0) - held
    end
    local need, per_output = given[asked + ASKED + number], given[asked + ASKED + count + number]
    if per_output > 0 then
      if kind == QUOTA then
        -- What a quota with so much room grants, as core/reservation.py has it.
        local left = floor((room - need) * 1000000 / per_output)
        local share = floor(left / OUTPUT_SHARE)
        if share < enough then
          share = enough
        end
        if share > left then
          share = left
        end
        if given[at + 2] == 0 then
          shares = shares or {}
          shares[number] = share
        elseif share < granted then
          granted = share
        end
        need = need + ceil(least * per_output / 1000000)
      else
        local whole = min(capacity, need + ceil(likely * per_output / 1000000))
        if whole > need then
          need = whole
        end
      end
    end
    if need > room then
      if given[at + 2] == 1 then
        verdict[1] = 0
      else
        overruled = overruled or {}
        overruled[number] = true
      end
    end
    local of_reply = number * 3
    counters[number], verdict[of_reply + 1], verdict[of_reply + 2], verdict[of_reply + 3] = counter, need, used, held
    at = at + OF_A_CHARGE
  end
until likely <= granted
verdict[3] = granted

-- Write.
if verdict[1] == 1 then
  local record = string.format('%d %d', step + STEPS, granted)
  local at = FIXED
  for number = 1, count do
    local counter, kind, of_reply = counters[number], given[at + 1], number * 3
    local fixed, per_output = given[asked + ASKED + number], given[asked + ASKED + count + number]
    local borne, is_quota = verdict[of_reply + 1], kind == QUOTA and per_output > 0
    if is_quota then
      borne = fixed + ceil(granted * per_output / 1000000)
    end
    local enforced = borne
    if given[at + 2] == 0 then
      if overruled and overruled[number] then
        borne = -1
      elseif is_quota then
        borne = fixed + ceil(min(granted, shares[number]) * per_output / 1000000)
      end
    end
    if borne ~= enforced or is_raised and counter.raised then
      record = record .. string.format(' %d %d', number + 1, borne)
    end
    verdict[of_reply + 1] = borne
    if borne >= 0 then
      local key, at_once, first, second = keys[number + 1], given[at + 3] == 1, given[at + 5], given[at + 6]
      local used, held = verdict[of_reply + 2], verdict[of_reply + 3]
      if at_once then
        used = used + borne * counter[SCALE]
        counter[USED], verdict[of_reply + 2] = used, used
      else
        held = held + borne
        counter[LAST], verdict[of_reply + 3] = counter[LAST] + borne, held
      end
      if unusual and unusual[number] then
        write(key, counter, held, kind, first, second, step_ms)
      else
        -- As `write` of counter.lua, but that only what changes is written where the expiry can stay: what is behind the
        -- holds always does, and the time of what does not flow back may be any that is past.
        local life_ms, spare_ms = 0, SPARE_MS
        if kind == QUOTA then
          life_ms, spare_ms = second - now, 0
          if life_ms >= TEN_YEARS_MS then
            life_ms, spare_ms = TEN_YEARS_MS, SPARE_MS
          end
        else
          if kind == RATE then
            life_ms = ceil(used / first)
          end
          if held > 0 and life_ms < STEPS * step_ms then
            life_ms = STEPS * step_ms
          end
        end
        local written = stored[number]
        local size = written and #written or 0
        local is_long = held > 0 or size > SHORT_SIZE
        if now + life_ms > counter[EXPIRY] then
          life_ms = life_ms + spare_ms
          counter[EXPIRY] = now + life_ms
          local packed = is_long and pack(LONG, unpack(counter, 1, LAST)) or pack(SHORT, unpack(counter, 1, EXPIRY))
          call('PSETEX', key, life_ms, size > #packed and packed .. string.sub(written, #packed + 1) or packed)
        elseif at_once then
          call('SETRANGE', key, '0', pack('<ddd', used, counter[SCALE], now))
        elseif not is_long then
          call('SETRANGE', key, '0', pack(SHORT, unpack(counter, 1, EXPIRY)))
        elseif size == SHORT_SIZE then
          call('SET', key, pack(LONG, unpack(counter, 1, LAST)), 'KEEPTTL')
        elseif kind ~= RATE and counter[PASSED] == 0 then
          call('SETRANGE', key, LAST_AT, pack('<d', counter[LAST]))
        else
          call('SETRANGE', key, '0', pack(LONG, unpack(counter, 1, LAST)))
        end
      end
    end
    at = at + OF_A_CHARGE
  end
  call('HSET', keys[1], ARGV[1], record)
  if call('HLEN', keys[1]) == 1 then
    call('PEXPIRE', keys[1], given[1])
  end
end

if is_raised then
  verdict[1] = verdict[1] + 2
  for number = 1, count do
    verdict[3 + 3 * count + number] = counters[number].raised or 0
  end
end
return cmsgpack.pack(verdict)
