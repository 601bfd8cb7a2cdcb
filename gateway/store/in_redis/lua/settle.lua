-- Replaces what a reservation holds by what was used, and writes the bill, once.
--
-- KEYS[1]  the request's record: a hash of reservation id to what counter.lua says, or "s" once settled
-- KEYS[2]  how far a journal on disk has been replayed here
-- where there is something to bill:
--   KEYS[3]  the ledger of the team and the day: a hash of key and model to sums of the first seven figures
--   KEYS[4]  its details: a hash of key, model, upstream and cost centre to sums of all figures
--   KEYS[5]  the days that the team's ledger has: a sorted set, scored by when each began
-- and where an end user is named:
--   KEYS[6]  the details by user: a hash
--   KEYS[7]  the scores of its rows: a sorted set
-- then the counters, one a due
--
-- ARGV[1]  how long the record is kept, in milliseconds
-- ARGV[2]  numbers that are the same in each call:
--   length of a step of holds, in milliseconds
--   how long the journal's mark is kept, and how long the ledger keeps a day, in milliseconds
--   how many rows with end users a day has
--   then four a due: its kind, 1 if it was used at once and not held, and the two terms of its kind
-- ARGV[3]  reservation id
-- ARGV[4]  numbers of this settlement:
--   its place in the journal, 0 where it comes from none
--   what is added to the score of the row of an end user
--   how many figures follow, 0 where there is nothing to bill, and the figures
--   then of each due the amount that admission charged, and of each what was used
-- where there is something to bill:
--   ARGV[5]  the day of the bill
--   ARGV[6]  the field in the ledger
--   ARGV[7]  the field in the details
-- and where an end user is named:
--   ARGV[8]  the user
--
-- Returns {1, now} where it settled, {0, now} where that had been done.

local FIRST_SCHEMA = 7
-- Scores are needed while new rows come: later, where there is no room, a new user is added to the others.
local SCORES_MS = 8 * 86400000

-- The stored row with `count` of the figures added to it.
local function added(row, figures, count)
  if not row then
    return pack(doubles(count), unpack(figures, 1, count))
  end
  local size = #row / 8
  local sums = { unpack_numbers(doubles(size), row) }
  for column = 1, count do
    sums[column] = (column <= size and sums[column] or 0) + figures[column]
  end
  size = max(size, count)
  return pack(doubles(size), unpack(sums, 1, size))
end

-- The row with the lowest score where there is no room for another: it is to be added to the others of its details.
local function displaced(users, scores, most)
  if call('HLEN', users) < most then
    return nil
  end
  local lowest = call('ZRANGE', scores, 0, 0, 'WITHSCORES')
  local field = lowest[1]
  local row = field and call('HGET', users, field)
  if not row then
    return {}
  end
  local count, others = #row / 8, string.match(field, '^[^\n]*\n')
  local figures = { unpack_numbers(doubles(count), row) }
  return { field = field, score = lowest[2], others = others, row = added(call('HGET', users, others), figures, count) }
end

local function user_bill(users, scores, details, user, bill, count, weight, most)
  local field = details .. '\n' .. user
  local row = call('HGET', users, field)
  local least = not row and displaced(users, scores, most) or nil
  if least and not least.field then
    field = details .. '\n'
    row = call('HGET', users, field)
    weight = nil
  end
  return { field = field, is_new = not row, row = added(row, bill, count), weight = weight, least = least }
end

local function write_user(users, scores, bill, life_ms)
  local least, weight = bill.least, bill.weight
  if least and least.field then
    call('HDEL', users, least.field)
    call('ZREM', scores, least.field)
    call('HSET', users, least.others, least.row)
    weight = weight + least.score
  end
  call('HSET', users, bill.field, bill.row)
  if not bill.is_new then
    if weight then
      call('ZADD', scores, 'XX', 'INCR', weight, bill.field)
    end
    return
  end
  if call('HLEN', users) == 1 then
    call('PEXPIRE', users, life_ms)
  end
  if weight then
    call('ZADD', scores, weight, bill.field)
    if call('ZCARD', scores) == 1 then
      call('PEXPIRE', scores, SCORES_MS)
    end
  end
end

local FIXED, GIVEN = 4, 3
local fixed = { unpack_numbers(doubles(#ARGV[2] / 8), ARGV[2]) }
local given = { unpack_numbers(doubles(#ARGV[4] / 8), ARGV[4]) }
local step_ms, mark_ms, ledger_ms = fixed[1], fixed[2], fixed[3]
local place, count = given[1], given[3]
local now = now_ms()
local step = floor(now / step_ms)

if place > 0 and place <= tonumber(call('GET', KEYS[2]) or '0') then
  return { 0, now }
end
local state = call('HGET', KEYS[1], ARGV[3])

-- Read all before anything is written: where somebody else has written to one of the keys, Redis ends the script with
-- an error, and half a settlement would count as a whole one.
local first_counter = ARGV[8] and 8 or count > 0 and 6 or 3
local billed, ledger_row, details, details_row, for_user
if count > 0 and state ~= SETTLED then
  local bill = { unpack(given, GIVEN + 1, GIVEN + count) }
  billed = call('HGET', KEYS[3], ARGV[6])
  ledger_row = added(billed, bill, FIRST_SCHEMA)
  details = call('HGET', KEYS[4], ARGV[7])
  details_row = details == billed and count == FIRST_SCHEMA and ledger_row or added(details, bill, count)
  if ARGV[8] then
    for_user = user_bill(KEYS[6], KEYS[7], ARGV[7], ARGV[8], bill, count, given[2], fixed[4])
  end
end
local last = last_of(state)
local counters = {}
if state ~= SETTLED and #KEYS >= first_counter then
  local stored = call('MGET', unpack(KEYS, first_counter))
  for number = 1, #stored do
    local at = FIXED + 4 * number - 4
    local charged, actual = given[GIVEN + count + number], given[GIVEN + count + #stored + number]
    local kind, first, second = fixed[at + 1], fixed[at + 3], fixed[at + 4]
    if in_window(kind, first, second, now) then
      local key = KEYS[first_counter + number - 1]
      local counter = current(key, stored[number], kind, first, second, now, step)
      if fixed[at + 2] == 1 then
        counter[1] = counter[1] + max(0, actual - charged) * counter[2]
      else
        release(counter, last, charged)
        if kind ~= LEASES then
          counter[1] = counter[1] + actual * counter[2]
        end
      end
      counters[#counters + 1] = { key, counter, kind, first, second }
    end
  end
end

if place > 0 then
  call('PSETEX', KEYS[2], mark_ms, string.format('%.0f', place))
end
if state == SETTLED then
  return { 0, now }
end
call('HSET', KEYS[1], ARGV[3], SETTLED)
-- A record that has the reservation got its expiry with it.
if not state then
  call('PEXPIRE', KEYS[1], ARGV[1])
end

if ledger_row then
  call('HSET', KEYS[3], ARGV[6], ledger_row)
  if not billed and call('HLEN', KEYS[3]) == 1 then
    call('PEXPIRE', KEYS[3], ledger_ms)
    call('ZADD', KEYS[5], now, ARGV[5])
    call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now - ledger_ms)
    call('PEXPIRE', KEYS[5], ledger_ms)
  end
  call('HSET', KEYS[4], ARGV[7], details_row)
  if not details and call('HLEN', KEYS[4]) == 1 then
    call('PEXPIRE', KEYS[4], ledger_ms)
  end
end
if for_user then
  write_user(KEYS[6], KEYS[7], for_user, ledger_ms)
end

for _, one in ipairs(counters) do
  write(one[1], one[2], one[3], one[4], one[5], step_ms)
end
return { 1, now }
