-- Admits a request to every limit that binds it and holds its charges, or changes nothing.
--
-- KEYS[1]    the request's record: a hash of reservation id to what counter.lua says
-- KEYS[2..]  the counters, one a charge
-- ARGV[1]    in MessagePack, one behind the other, whole numbers but for the id; first those that are the same in each call:
--   how long the record is kept, in milliseconds
--   how far the given time may be off; a call that comes later than this is not answered any more
--   length of a step of holds, in milliseconds
--   then six a charge: kind, 1 if it is enforced, 1 if it is used at once and not held, capacity, and the two terms of
--   its kind
--   and those of this request:
--   reservation id
--   the store's time as the gateway knows it, in milliseconds
--   output that is likely, in tokens: rates hold it, up to a full bucket
--   output that is wanted at most: quotas hold as much of it as they grant
--   output that they must pay for at least
--   output that they grant, as far as they still pay for it, where an eighth of what they pay for is less
--   the fixed amount of each charge
--   of each charge what a token of output costs, in millionths of a unit
--
-- Returns {-1, now} where the gateway must ask again: its time is off, or a window is over.
-- Else, as little-endian whole numbers of eight bytes, {1 for admitted or 0 for refused, now, granted output}, then three
-- a charge: the amount that it bears or would bear, what is used (in parts), what is held. Those of a refusal are as they
-- are, those of an admission as they are with it. Where grants raise any of the limits the first number is 2 more, and
-- what they add to each follows. A shadow limit bears what it would bear if it were enforced: -1 says that it would have
-- refused and bears nothing, and of a quota it bears no more than that would have granted.

local OUTPUT_SHARE = 8
local FIXED = 3
local OF_A_CHARGE = 6
local ASKED = 6
-- Where in a counter's string its last hold begins: a text of one number is written there, all others at its beginning.
local LAST_AT = '80'
local ONE_SIZE = 8
-- Of a reply with up to four charges.
local USUAL_SIZE = 15
local USUAL_REPLY = '<lllllllllllllll'

local keys, ceil, pack = KEYS, math.ceil, struct.pack
local count = #keys - 1
local given = { cmsgpack.unpack(ARGV[1]) }
local slack_ms, step_ms, asked = given[2], given[3], FIXED + OF_A_CHARGE * count
local likely, most, least, enough = given[asked + 3], given[asked + 4], given[asked + 5], given[asked + 6]
local fixed_at, per_output_at = asked + ASKED, asked + ASKED + count
local step = floor(now / step_ms)

local ahead_ms = now - given[asked + 2]
if ahead_ms > slack_ms or -ahead_ms > slack_ms then
  return { -1, now }
end

-- Read, judge, and prepare what is written.
-- Tables that have their size from the start, as to grow takes longer than to fill.
local verdict = { 1, now, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
-- By the number of a charge: what is written, and for how long the counter then lives where that is to be set; or the
-- counter as the functions of counter.lua have it, and what it holds.
local texts = { false, false, false, false }
local lives, counters, holding, raises, current, write
-- What the record says beyond the usual.
local exceptions
local granted, before, admits = most, most, 1
-- MGET takes a key of another type for none, and the counter would be written over what somebody else has there: GET ends
-- the script with an error before anything is written.
local stored = count > 0 and call('MGET', unpack(keys, 2))
-- Again where a quota has granted less than what was judged before it.
repeat
  if likely > granted then
    likely = granted
  end
  before, admits, lives, exceptions = granted, 1, nil, nil
  local at = FIXED
  for number = 1, count do
    local kind, capacity, first, second = given[at + 1], given[at + 4], given[at + 5], given[at + 6]
    if kind == QUOTA and (now < first or second <= now) then
      return { -1, now }
    end
    local written, size, held, counter = stored[number], 0, 0, nil
    local used, scale, stamp, expiry, over, hold1, hold2, hold3, hold4, hold5, hold6
    if written then
      size = #written
    else
      call('GET', keys[number + 1])
    end
    if size > SHORT_SIZE then
      used, scale, stamp, expiry, over, hold1, hold2, hold3, hold4, hold5, hold6 = unpack_numbers(LONG, written)
    else
      if written then
        used, scale, stamp, expiry = unpack_numbers(SHORT, written)
      else
        used, scale, stamp, expiry = 0, kind == RATE and second or 1, now, 0
      end
      over, hold1, hold2, hold3, hold4, hold5, hold6 = step, 0, 0, 0, 0, 0, 0
    end
    local passed = step - over
    if size > WITH_HISTORY_SIZE or stamp > now or passed < 0 or kind == RATE and scale ~= second then
      -- Grants raise its limit, its rate is another by now, or the clock was set back.
      if not current then
        current, write = counter_functions()
        counters, holding = {}, {}
      end
      counter, held = current(keys[number + 1], written, kind, first, second, step)
      used, scale = counter[USED], counter[SCALE]
      if counter.raised then
        raises = raises or {}
        raises[number], capacity = counter.raised, capacity + counter.raised
      end
    else
      if passed > 0 then
        for _ = 1, passed < STEPS and passed or STEPS do
          hold1, hold2, hold3, hold4, hold5, hold6 = hold2, hold3, hold4, hold5, hold6, 0
        end
      end
      held = hold1 + hold2 + hold3 + hold4 + hold5 + hold6
      if kind == RATE then
        used = used - (now - stamp) * first
        if used < 0 then
          used = 0
        end
      end
    end
    local room = capacity - used - held
    if scale ~= 1 then
      local rest = used % scale
      room = capacity - (used - rest) / scale - (rest > 0 and 1 or 0) - held
    end
    local need, per_output, enforced = given[fixed_at + number], given[per_output_at + number], given[at + 2] == 1
    local borne, whole = need, need
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
        if enforced and share < granted then
          granted = share
        end
        borne = need + ceil((share < granted and share or granted) * per_output / 1000000)
        whole = need + ceil(granted * per_output / 1000000)
        need = need + ceil(least * per_output / 1000000)
      else
        borne = need + ceil(likely * per_output / 1000000)
        if borne > capacity then
          borne = capacity
        end
        if borne > need then
          need = borne
        end
        borne, whole = need, need
      end
    end
    if need > room then
      if enforced then
        admits = 0
      else
        borne = -1
      end
    end
    if borne ~= whole or raises and raises[number] then
      exceptions = (exceptions or '') .. string.format(' %d %d', number + 1, borne)
    end
    local text = false
    if borne >= 0 then
      local at_once = given[at + 3] == 1
      if at_once then
        used = used + borne * scale
      else
        held = held + borne
      end
      if counter then
        counter[USED] = used
        if not at_once then
          counter[LAST] = counter[LAST] + borne
        end
      else
        -- As `write` of counter.lua, but that only what changes is written where the expiry can stay: what is behind the
        -- holds always does, and what flows back of a rate by itself is not written, nor the time of what does not.
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
        if not at_once then
          hold6 = hold6 + borne
        end
        if now + life_ms > expiry then
          life_ms = life_ms + spare_ms
          expiry = now + life_ms
          if held > 0 or size > SHORT_SIZE then
            text = pack(LONG, used, scale, now, expiry, step, hold1, hold2, hold3, hold4, hold5, hold6)
          else
            text = pack(SHORT, used, scale, now, expiry)
          end
          if size > #text then
            text = text .. string.sub(written, #text + 1)
          end
          lives = lives or { false, false, false, false }
          lives[number] = life_ms
        elseif at_once then
          text = pack('<ddd', used, scale, now)
        elseif passed == 0 and size > SHORT_SIZE then
          text = pack('<d', hold6)
        elseif held > 0 then
          text = pack(LONG, used, scale, now, expiry, step, hold1, hold2, hold3, hold4, hold5, hold6)
        end
      end
    end
    if counter then
      counters[number], holding[number] = borne >= 0 and counter, held
    end
    local of_reply = number * 3
    texts[number] = text
    verdict[of_reply + 1], verdict[of_reply + 2], verdict[of_reply + 3] = borne, used, held
    at = at + OF_A_CHARGE
  end
until granted == before
verdict[1], verdict[3] = admits, granted

if admits == 1 then
  call('HSET', keys[1], given[asked + 1], string.format('%d %d', step + STEPS, granted) .. (exceptions or ''))
  if call('HLEN', keys[1]) == 1 then
    call('PEXPIRE', keys[1], given[1])
  end
  for number = 1, count do
    local key, text, written = keys[number + 1], texts[number], stored[number]
    local counter = counters and counters[number]
    if counter then
      local at = FIXED + OF_A_CHARGE * (number - 1)
      write(key, counter, holding[number], given[at + 1], given[at + 5], given[at + 6], step_ms)
    elseif lives and lives[number] then
      call('PSETEX', key, lives[number], text)
    elseif text and #text > #written then
      -- SETRANGE would reserve twice the memory of a string that grows.
      call('SET', key, text, 'KEEPTTL')
    elseif text then
      call('SETRANGE', key, #text == ONE_SIZE and LAST_AT or '0', text)
    end
  end
else
  -- Nothing is borne: what is used and held is as it was.
  for number = 1, count do
    local at, of_reply, counter = FIXED + OF_A_CHARGE * (number - 1), number * 3, counters and counters[number]
    local borne = math.max(0, verdict[of_reply + 1])
    if given[at + 3] == 1 then
      local scale = counter and counter[SCALE] or given[at + 1] == RATE and given[at + 6] or 1
      verdict[of_reply + 2] = verdict[of_reply + 2] - borne * scale
    else
      verdict[of_reply + 3] = verdict[of_reply + 3] - borne
    end
  end
end

if raises then
  verdict[1] = admits + 2
  for number = 1, count do
    verdict[3 + 3 * count + number] = raises[number] or 0
  end
end
local size = #verdict
return pack(size == USUAL_SIZE and USUAL_REPLY or '<' .. string.rep('l', size), unpack(verdict))
