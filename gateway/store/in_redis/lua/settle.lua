-- Replaces what a reservation holds by what was used, and writes the bill and the request's record, once.
--
-- KEYS[1]  the request's record: a hash of reservation id to what counter.lua says, or "s" once settled
-- KEYS[2]  how far a journal on disk has been replayed here
-- where there is something to bill:
--   KEYS[3]  the ledger of the team and the day: a hash of key and model to sums of the first seven figures
--   KEYS[4]  its details: a hash of key, model, upstream and cost centre to sums of all figures
--   KEYS[5]  the days that the team's ledger has: a sorted set, scored by when each began; close.lua adds "closed"
-- and where an end user is named:
--   KEYS[6]  the details by user: a hash
--   KEYS[7]  the scores of the users that have rows there: a sorted set
--   KEYS[8]  the details that each of these users has: a hash of user to their fields, joined by line feeds
-- then the counters, one a due
-- and where thresholds are given, the notifications that wait: a sorted set, scored by when each is due
-- and of each threshold of an end user's quota, the users who have crossed such: a hash of the percent to how many,
--   "percent:names" to some of them, a line each, and "percent:last" to when they were gathered last
-- and last, where a record of the request is kept, the team's records and their order, as in request_records.lua
--
-- ARGV[1]  how long the record is kept, in milliseconds
-- ARGV[2]  numbers that are the same in each call, in MessagePack, one behind the other:
--   length of a step of holds, in milliseconds
--   how long the journal's mark is kept, and how long the ledger keeps a day, in milliseconds
--   how many end users a day has
--   the day of the bill, in milliseconds since 1970, as if its time zone were UTC; 0 where there is none
--   1 where a record of the request is kept, else 0
--   then four a due: its kind, 1 if it was used at once and not held, and the two terms of its kind
--   then four a threshold, those of one due ascending: the number of its due, which is a quota, percent, the quota's
--   amount, and which of the keys behind the outbox has the end users who crossed it, 0 where it is of no end user
-- ARGV[3]  reservation id
-- ARGV[4]  numbers of this settlement, likewise:
--   its place in the journal, 0 where it comes from none
--   what is added to the score of the end user
--   how many figures follow, 0 where there is nothing to bill, and the figures
--   then of each due the amount that admission charged, and of each what was used
-- where there is something to bill:
--   ARGV[5]  the day of the bill
--   ARGV[6]  the field in the ledger
--   ARGV[7]  the field in the details
-- and where an end user is named:
--   ARGV[8]  the user
-- and last, where a record of the request is kept:
--   the request id, the record as JSON, how long it is kept in milliseconds, and how many records the team may have
--
-- Returns {1, now} where it settled, {1, now, put in, dropped} where that crossed thresholds, {0, now} where that had
-- been done, and {2, now, first open day} where the day is closed: nothing was settled then.

local FIRST_SCHEMA = 7
-- As store/contract.py has them.
local OUTBOX_MAX = 10000
local OUTBOX_MS = 604800000
local USERS_WAIT_MS = 60000
local USERS_PACE_MS = 3600000
local USERS_NAMED = 5
-- A day that is younger cannot be closed.
local LATE_MS = 2 * 86400000
-- Scores are needed while new rows come: later, where there is no room, a new user is added to the others.
local SCORES_MS = 8 * 86400000
-- What one user has beyond so many rows is added to the others.
local ROWS_OF_A_USER = 64

local max, pack = math.max, struct.pack
local current, write, _, _, stored_from, doubles = counter_functions()

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

-- The functions that find the place of an end user's bill and write it, which most requests do not need.
local function end_users()
  -- The user with the lowest score, and its rows, each with what the others of its details have once it is added to them.
  local function displaced(users, scores, names_of)
    local lowest = call('ZRANGE', scores, 0, 0, 'WITHSCORES')
    local user, rows = lowest[1], {}
    for details in string.gmatch(call('HGET', names_of, user) or '', '[^\n]+') do
      local field, others = details .. '\n' .. user, details .. '\n'
      local row = call('HGET', users, field)
      if row then
        local count = #row / 8
        local figures = { unpack_numbers(doubles(count), row) }
        rows[#rows + 1] = { field = field, others = others, sums = added(call('HGET', users, others), figures, count) }
      end
    end
    return { user = user, score = tonumber(lowest[2]), rows = rows }
  end

  -- Where a row goes that is not there yet: a place of its own, perhaps that of the user with the lowest score, or none.
  local function place_of(users, scores, names_of, user, most)
    local names = call('HGET', names_of, user)
    if names then
      local rows = select(2, string.gsub(names, '\n', '')) + 1
      return { own = rows < ROWS_OF_A_USER, scored = true, names = names, score = 0 }
    end
    local known, rows = call('ZCARD', scores), call('HLEN', users)
    if known == 0 and rows > 0 then
      return { own = rows < most, scored = false }
    end
    local least = known >= most and displaced(users, scores, names_of) or nil
    return { own = true, scored = true, least = least, score = least and least.score or 0 }
  end

  local function user_bill(users, scores, names_of, details, user, bill, count, most)
    local field = details .. '\n' .. user
    local row = call('HGET', users, field)
    local place = row and { scored = true, score = 0 } or place_of(users, scores, names_of, user, most)
    call('ZCARD', scores)
    if not row and not place.own then
      field = details .. '\n'
      row = call('HGET', users, field)
    end
    place.field, place.is_new, place.row = field, not row, added(row, bill, count)
    return place
  end

  local function write_user(users, scores, names_of, details, user, place, weight, life_ms)
    local least = place.least
    if least then
      for _, moved in ipairs(least.rows) do
        call('HDEL', users, moved.field)
        call('HSET', users, moved.others, moved.sums)
      end
      call('ZREM', scores, least.user)
      call('HDEL', names_of, least.user)
    end
    call('HSET', users, place.field, place.row)
    if place.is_new and call('HLEN', users) == 1 then
      call('PEXPIRE', users, life_ms)
    end
    if not place.scored then
      return
    end
    if not place.own then
      call('ZADD', scores, 'XX', 'INCR', weight, user)
      return
    end
    call('ZADD', scores, 'INCR', place.score + weight, user)
    call('HSET', names_of, user, place.names and place.names .. '\n' .. details or details)
    for _, key in ipairs({ scores, names_of }) do
      if call('PTTL', key) < 0 then
        call('PEXPIRE', key, SCORES_MS)
      end
    end
  end

  return user_bill, write_user
end

-- As core/forecast.py has it.
local HOURS_HALF_LIFE_MS = 7200000
local DAYS_HALF_LIFE_MS = 172800000

-- The functions that put notifications in, which few settlements need.
local function notifications()
  -- Puts the notification of a threshold in. Returns 1 where there is room for it. Where somebody else has written to the
  -- outbox it is dropped: the settlement is half written by now, and must not end.
  local function notify(outbox, key, percent, used)
    local waiting = redis.pcall('ZCARD', outbox)
    if type(waiting) ~= 'number' or waiting >= OUTBOX_MAX then
      return 0
    end
    local stem, begins = string.match(key, '^(.*):(%d+)$')
    local entry = { 'quota', stem, begins, percent, string.format('%.0f', used), string.format('%.0f', now) }
    call('ZADD', outbox, now, table.concat(entry, '\n'))
    call('PEXPIRE', outbox, OUTBOX_MS)
    return 1
  end

  -- Counts one more end user who has crossed a threshold, and puts in one entry for all who do so until it is due. Returns
  -- 1 where it did, or where that was done before.
  local function notify_of_user(outbox, crossed, percent, user)
    local users = redis.pcall('HGET', crossed, percent)
    if type(users) == 'table' then
      return 0
    end
    users = tonumber(users or '0')
    if users == 0 then
      local waiting = redis.pcall('ZCARD', outbox)
      if type(waiting) ~= 'number' or waiting >= OUTBOX_MAX then
        return 0
      end
      local last = tonumber(call('HGET', crossed, percent .. ':last') or '0')
      local stem, begins = string.match(crossed, '^(.*):(%d+):users$')
      local due = max(now + USERS_WAIT_MS, last + USERS_PACE_MS)
      call('ZADD', outbox, due, table.concat({ 'users', stem, begins, percent }, '\n'))
      call('PEXPIRE', outbox, OUTBOX_MS)
    end
    call('HINCRBY', crossed, percent, 1)
    if user and users < USERS_NAMED then
      local field, name = percent .. ':names', string.gsub(user, '%c', ' ')
      local names = call('HGET', crossed, field)
      call('HSET', crossed, field, names and names .. '\n' .. name or name)
    end
    call('PEXPIRE', crossed, OUTBOX_MS)
    return 1
  end

  return notify, notify_of_user
end

local FIXED = 6
local GIVEN = 3
local fixed, given = { cmsgpack.unpack(ARGV[2]) }, { cmsgpack.unpack(ARGV[4]) }
local step_ms, mark_ms, ledger_ms = fixed[1], fixed[2], fixed[3]
local place, count = given[1], given[3]
-- Where the keys and arguments end that are not of the record.
local last_key, last_argument = #KEYS, #ARGV
if fixed[6] == 1 then
  last_key, last_argument = last_key - 2, last_argument - 4
end
local user = last_argument >= 8 and ARGV[8]
local step = floor(now / step_ms)

if place > 0 and place <= tonumber(call('GET', KEYS[2]) or '0') then
  return { 0, now }
end
local state = call('HGET', KEYS[1], ARGV[3])

-- Read all before anything is written: where somebody else has written to one of the keys, Redis ends the script with
-- an error, and half a settlement would count as a whole one.
local first_counter = user and 9 or count > 0 and 6 or 3
local billed, ledger_row, details, details_row, for_user, write_user
if count > 0 and state ~= SETTLED then
  local day = fixed[5]
  if now - day >= LATE_MS then
    local open = call('ZSCORE', KEYS[5], 'closed')
    if open and day < tonumber(open) then
      return { 2, now, tonumber(open) }
    end
  end
  local bill = { unpack(given, GIVEN + 1, GIVEN + count) }
  billed = call('HGET', KEYS[3], ARGV[6])
  if not billed then
    call('ZCARD', KEYS[5])
  end
  ledger_row = added(billed, bill, FIRST_SCHEMA)
  details = call('HGET', KEYS[4], ARGV[7])
  details_row = details == billed and count == FIRST_SCHEMA and ledger_row or added(details, bill, count)
  if user then
    local user_bill
    user_bill, write_user = end_users()
    for_user = user_bill(KEYS[6], KEYS[7], KEYS[8], ARGV[7], user, bill, count, fixed[4])
  end
end
local last = last_of(state)
local counters, holding, used_of = {}, {}, {}
local dues = (#given - GIVEN - count) / 2
local first_threshold = FIXED + 4 * dues + 1
if state ~= SETTLED and dues > 0 then
  local stored, at = stored_from(first_counter, first_counter + dues - 1), FIXED
  for number = 1, dues do
    local charged, actual = given[GIVEN + count + number], given[GIVEN + count + dues + number]
    local kind, at_once, first, second = fixed[at + 1], fixed[at + 2], fixed[at + 3], fixed[at + 4]
    if in_window(kind, first, second, now) then
      local key = KEYS[first_counter + number - 1]
      local counter, held_now = current(key, stored[number], kind, first, second, step)
      local whole = actual
      if at_once == 1 then
        whole = max(actual, charged)
        counter[USED] = counter[USED] + (whole - charged) * counter[SCALE]
      else
        release(counter, last, charged)
        held_now = held(counter)
        if kind ~= LEASES then
          counter[USED] = counter[USED] + actual * counter[SCALE]
        end
      end
      counters[number], holding[number] = counter, held_now
      if kind == QUOTA and whole > 0 then
        -- What a request has used is added to the two sums that fade.
        if (counter[SINCE] or 0) == 0 then
          counter[NOTED_PERCENT], counter[SINCE], counter[NOTED] = 0, now * HISTORY_UNIT, now * HISTORY_UNIT
          counter[HOURS], counter[DAYS] = 0, 0
        end
        local elapsed = max(0, now - counter[NOTED] / HISTORY_UNIT)
        counter[HOURS] = counter[HOURS] * 2 ^ (-elapsed / HOURS_HALF_LIFE_MS) + whole * HISTORY_UNIT
        counter[DAYS] = counter[DAYS] * 2 ^ (-elapsed / DAYS_HALF_LIFE_MS) + whole * HISTORY_UNIT
        counter[NOTED] = now * HISTORY_UNIT
        used_of[number] = counter
      end
    end
    at = at + 4
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
  write_user(KEYS[6], KEYS[7], KEYS[8], ARGV[7], user, for_user, given[2], ledger_ms)
end

if last_key < #KEYS then
  keep_record(
    KEYS[last_key + 1], KEYS[last_key + 2], ARGV[last_argument + 1], ARGV[last_argument + 2], now,
    tonumber(ARGV[last_argument + 3]), tonumber(ARGV[last_argument + 4])
  )
end
local result = { 1, now }
for at = first_threshold, #fixed, 4 do
  local counter, percent = used_of[fixed[at]], fixed[at + 1]
  if counter and counter[USED] * 100 >= (fixed[at + 2] + (counter.raised or 0)) * percent then
    if percent * HISTORY_UNIT > counter[NOTED_PERCENT] then
      counter[NOTED_PERCENT] = percent * HISTORY_UNIT
      local outbox, users = first_counter + dues, fixed[at + 3]
      local notify, notify_of_user = notifications()
      local put_in
      if users > 0 then
        put_in = notify_of_user(KEYS[outbox], KEYS[outbox + users], percent, user)
      else
        put_in = notify(KEYS[outbox], KEYS[first_counter + fixed[at] - 1], percent, counter[USED])
      end
      result[3], result[4] = (result[3] or 0) + put_in, (result[4] or 0) + 1 - put_in
    end
  end
end
local at = FIXED
for number = 1, dues do
  local counter = counters[number]
  if counter then
    write(
      KEYS[first_counter + number - 1], counter, holding[number], fixed[at + 1], fixed[at + 3], fixed[at + 4], step_ms
    )
  end
  at = at + 4
end
return result
