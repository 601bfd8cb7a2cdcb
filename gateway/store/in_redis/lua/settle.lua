-- Replaces what a reservation holds by what was used, and writes the bill and the request's record, once.
--
-- KEYS[1]  the request's record: a hash of reservation id to what counter.lua says, or "s" once settled
-- where there is something to bill:
--   KEYS[2]  the ledger of the team and the day, with which its name ends: a hash of key and model to sums of the first
--     seven figures
--   KEYS[3]  its details: a hash of key, model, upstream and cost centre to sums of all figures
--   KEYS[4]  the days that the team's ledger has: a sorted set, scored by when each began; close.lua adds "closed"
-- and where an end user is named:
--   KEYS[5]  the details by user: a hash
--   KEYS[6]  the scores of the users that have rows there: a sorted set
--   KEYS[7]  the details that each of these users has: a hash of user to their fields, joined by line feeds
-- then the counters, one a due
-- and where thresholds are given, the notifications that wait: a sorted set, scored by when each is due
-- and of each threshold of an end user's quota, the users who have crossed such: a hash of the percent to how many,
--   "percent:names" to some of them, a line each, and "percent:last" to when they were gathered last
-- and where a record of the request is kept, the team's records and their order, as in request_records.lua
-- and last, where the settlement comes from a journal on disk, how far that has been replayed here
--
-- ARGV[1]  reservation id
-- ARGV[2]  numbers in MessagePack, one behind the other, first those that are the same in each call:
--   length of a step of holds, in milliseconds
--   how long the ledger keeps a day, and the journal's mark is kept, in milliseconds
--   how long the record is kept, in milliseconds
--   how many end users a day has
--   the day of the bill, in milliseconds since 1970, as if its time zone were UTC; 0 where there is none
--   1 where a record of the request is kept, else 0
--   how many dues there are, and how many thresholds
--   then five a due: which of the charges it is, its kind, 1 if it was used at once and not held, and the two terms of
--   its kind
--   then four a threshold, those of one due ascending: the number of its due, which is a quota, percent, the quota's
--   amount, and which of the keys behind the outbox has the end users who crossed it, 0 where it is of no end user
--   and those of this settlement:
--   its place in the journal, 0 where it comes from none
--   what is added to the score of the end user
--   how many figures follow, 0 where there is nothing to bill, and the figures
--   how many charges the reservation has
--   then of each charge the amount that admission charged, and of each what was used
-- where there is something to bill:
--   ARGV[3]  the field in the ledger
--   ARGV[4]  the field in the details
-- and where an end user is named:
--   ARGV[5]  the user
-- and last, where a record of the request is kept:
--   the request id, the record as JSON, how long it is kept in milliseconds, and how many records the team may have
--
-- Returns {1, now} where it settled, {1, now, put in, dropped} where that crossed thresholds, {0, now} where that had
-- been done, and {2, now, first open day} where the day is closed: nothing was settled then. The first bill of a team and
-- day has 3 in place of 1.
--
-- Holds are not moved to the present step here: what is taken out of one stays where it was written. Most counters are
-- read and written in locals, and the functions of counter.lua and holds.lua are for the others.

local FIRST_SCHEMA = 7
-- As store/contract.py has them.
local OUTBOX_MAX = 10000
local OUTBOX_MS = 604800000
local USERS_WAIT_MS = 60000
local USERS_PACE_MS = 3600000
local USERS_NAMED = 5
local LATE_MS = 2 * 86400000
-- Scores are needed while new rows come: later, where there is no room, a new user is added to the others.
local SCORES_MS = 8 * 86400000
-- What one user has beyond so many rows is added to the others.
local ROWS_OF_A_USER = 64

local FIXED = 8
local OF_A_DUE = 5
local OF_A_THRESHOLD = 4
-- As core/forecast.py has it.
local HOURS_HALF_LIFE_MS = 7200000
local DAYS_HALF_LIFE_MS = 172800000

local keys, max, pack = KEYS, math.max, struct.pack

-- The stored row with `count` of the figures added to it, which begin in their list behind `start`.
local function added(row, figures, start, count)
  local size = row and #row / 8 or 0
  local most = max(size, count)
  local doubles = most == FIRST_SCHEMA and '<ddddddd' or '<' .. string.rep('d', most)
  if not row then
    return pack(doubles, unpack(figures, start + 1, start + count))
  end
  local sums = { unpack_numbers(size == most and doubles or string.sub(doubles, 1, size + 1), row) }
  for column = 1, count do
    sums[column] = (column <= size and sums[column] or 0) + figures[start + column]
  end
  return pack(doubles, unpack(sums, 1, most))
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
        local figures = { unpack_numbers('<' .. string.rep('d', count), row) }
        rows[#rows + 1] = { field = field, others = others, sums = added(call('HGET', users, others), figures, 0, count) }
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

  local function user_bill(users, scores, names_of, details, user, figures, start, count, most)
    local field = details .. '\n' .. user
    local row = call('HGET', users, field)
    local place = row and { scored = true, score = 0 } or place_of(users, scores, names_of, user, most)
    call('ZCARD', scores)
    if not row and not place.own then
      field = details .. '\n'
      row = call('HGET', users, field)
    end
    place.field, place.is_new, place.row = field, not row, added(row, figures, start, count)
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

local given = { cmsgpack.unpack(ARGV[2]) }
local step_ms, ledger_ms, day, dues = given[1], given[2], given[5], given[7]
local thresholds = FIXED + OF_A_DUE * dues
local own = thresholds + OF_A_THRESHOLD * given[8]
local place, figures, count = given[own + 1], own + 3, given[own + 3]
local charged = figures + count + 1
local actual = charged + given[charged]
-- Where the arguments and keys of the request's record begin, where one is kept.
local of_record = #ARGV - (given[6] == 1 and 4 or 0)
local user = of_record == 5 and ARGV[5]
local journal = place > 0 and keys[#keys]

if journal and place <= tonumber(call('GET', journal) or '0') then
  return { 0, now }
end
local state = call('HGET', keys[1], ARGV[1])
if state == SETTLED then
  if journal then
    call('PSETEX', journal, ledger_ms, string.format('%.0f', place))
  end
  return { 0, now }
end

-- Read all before anything is written: where somebody else has written to one of the keys, Redis ends the script with
-- an error, and half a settlement would count as a whole one.
local first_counter = user and 8 or count > 0 and 5 or 2
local billed, ledger_row, details, details_row, for_user, write_user
if count > 0 then
  -- A day that is younger cannot be closed.
  if now - day >= LATE_MS then
    local open = call('ZSCORE', keys[4], 'closed')
    if open and day < tonumber(open) then
      return { 2, now, tonumber(open) }
    end
  end
  billed = call('HGET', keys[2], ARGV[3])
  if not billed then
    call('ZCARD', keys[4])
  end
  ledger_row = added(billed, given, figures, FIRST_SCHEMA)
  details = call('HGET', keys[3], ARGV[4])
  details_row = details == billed and count == FIRST_SCHEMA and ledger_row or added(details, given, figures, count)
  if user then
    local user_bill
    user_bill, write_user = end_users()
    for_user = user_bill(keys[5], keys[6], keys[7], ARGV[4], user, given, figures, count, given[4])
  end
end

-- By the number of a due: what is written, where in the counter's string if not at its beginning, and for how long the
-- counter then lives where that is to be set; or the counter as the functions of counter.lua have it, and what it holds.
local texts, starts = { false, false, false, false }, {}
local lives, counters, holding, current, write, release, held, crossed
-- As in holds.lua.
local last = state and tonumber(string.match(state, '^%d+')) or 0
local step = floor(now / step_ms)
-- MGET takes a key of another type for none, and the counter would be written over what somebody else has there: GET ends
-- the script with an error before anything is written.
local stored = dues > 0 and call('MGET', unpack(keys, first_counter, first_counter + dues - 1))
local at = FIXED
for number = 1, dues do
  local kind, at_once = given[at + 2], given[at + 3] == 1
  local first, second, whole = given[at + 4], given[at + 5], 0
  local key, written = keys[first_counter + number - 1], stored[number]
  local size = written and #written or 0
  if not written then
    call('GET', key)
  end
  if kind ~= QUOTA or first <= now and now < second then
    local borne, used_now = given[charged + given[at + 1]], given[actual + given[at + 1]]
    local counter, used, scale, stamp, expiry, over
    local hold1, hold2, hold3, hold4, hold5, hold6, percent, since, noted, hours, days
    -- Where in its string the hold begins from which the charge is taken, and what is left of it.
    local start, rest
    local is_usual = size == LONG_SIZE or kind == QUOTA and size == WITH_HISTORY_SIZE
    if is_usual then
      used, scale, stamp, expiry, over, hold1, hold2, hold3, hold4, hold5, hold6, percent, since, noted, hours, days =
        unpack_numbers(size == LONG_SIZE and LONG or WITH_HISTORY, written)
      is_usual = stamp <= now and over <= step and (kind ~= RATE or scale == second)
      if is_usual and last > step and not at_once then
        local until_step = last - over
        if until_step == 6 then
          start, rest = '80', hold6 - borne
          hold6 = rest
        elseif until_step == 5 then
          start, rest = '72', hold5 - borne
          hold5 = rest
        elseif until_step == 4 then
          start, rest = '64', hold4 - borne
          hold4 = rest
        elseif until_step == 3 then
          start, rest = '56', hold3 - borne
          hold3 = rest
        elseif until_step == 2 then
          start, rest = '48', hold2 - borne
          hold2 = rest
        elseif until_step == 1 then
          start, rest = '40', hold1 - borne
          hold1 = rest
        end
        -- Else the clock was set back since, which moved the hold.
        is_usual = rest and rest >= 0
      end
    end
    if not is_usual then
      if not current then
        current, write = counter_functions()
        release, held = hold_functions()
        counters, holding = {}, {}
      end
      counter = current(key, written, kind, first, second, step)
      if not at_once then
        release(counter, last, borne)
      end
      used, scale, stamp = counter[USED], counter[SCALE], now
      percent, since, noted, hours, days = unpack(counter, NOTED_PERCENT, DAYS)
    end
    if at_once then
      whole = max(used_now, borne)
      used_now = whole - borne
    elseif kind == LEASES then
      used_now = 0
    else
      whole = used_now
    end
    if kind == RATE and now > stamp then
      used = max(0, used - (now - stamp) * first)
    end
    used = used + used_now * scale
    if kind == QUOTA and whole > 0 then
      -- What a request has used is added to the two sums that fade.
      if size < WITH_HISTORY_SIZE or since == 0 then
        percent, since, noted, hours, days = 0, now * HISTORY_UNIT, now * HISTORY_UNIT, 0, 0
      end
      local elapsed = max(0, now - noted / HISTORY_UNIT)
      noted = now * HISTORY_UNIT
      hours = hours * 2 ^ (-elapsed / HOURS_HALF_LIFE_MS) + whole * HISTORY_UNIT
      days = days * 2 ^ (-elapsed / DAYS_HALF_LIFE_MS) + whole * HISTORY_UNIT
      local raised = counter and counter.raised or 0
      for at_threshold = thresholds, own - 1, OF_A_THRESHOLD do
        local noticed = given[at_threshold + 2]
        if given[at_threshold + 1] == number and noticed * HISTORY_UNIT > percent
          and used * 100 >= (given[at_threshold + 3] + raised) * noticed then
          percent = noticed * HISTORY_UNIT
          crossed = crossed or {}
          crossed[#crossed + 1] = { key = key, percent = noticed, used = used, users = given[at_threshold + 4] }
        end
      end
    end
    if counter then
      counter[USED] = used
      if since then
        counter[NOTED_PERCENT], counter[SINCE], counter[NOTED] = percent, since, noted
        counter[HOURS], counter[DAYS] = hours, days
      end
      counters[number], holding[number] = counter, held(counter)
    elseif kind == LEASES or kind == QUOTA and whole == 0 then
      texts[number], starts[number] = rest and pack('<d', rest), start
    else
      local life_ms, spare_ms = 0, SPARE_MS
      if kind == RATE then
        life_ms = math.ceil(used / first)
      else
        life_ms, spare_ms = second - now, 0
        if life_ms >= TEN_YEARS_MS then
          life_ms, spare_ms = TEN_YEARS_MS, SPARE_MS
        end
      end
      if now + life_ms > expiry then
        lives = lives or {}
        lives[number] = life_ms + spare_ms
        expiry = now + life_ms + spare_ms
      end
      if kind == RATE then
        texts[number] = pack(LONG, used, scale, now, expiry, over, hold1, hold2, hold3, hold4, hold5, hold6)
      else
        texts[number] = pack(
          WITH_HISTORY, used, scale, now, expiry, over, hold1, hold2, hold3, hold4, hold5, hold6, percent, since, noted,
          hours, days
        )
      end
    end
  end
  at = at + OF_A_DUE
end

if journal then
  call('PSETEX', journal, ledger_ms, string.format('%.0f', place))
end
call('HSET', keys[1], ARGV[1], SETTLED)
-- A record that has the reservation got its expiry with it.
if not state then
  call('PEXPIRE', keys[1], given[3])
end

local result = { 1, now }
if ledger_row then
  call('HSET', keys[2], ARGV[3], ledger_row)
  if not billed and call('HLEN', keys[2]) == 1 then
    result[1] = 3
    call('PEXPIRE', keys[2], ledger_ms)
    call('ZADD', keys[4], now, string.match(keys[2], '[^:]*$'))
    call('ZREMRANGEBYSCORE', keys[4], '-inf', now - ledger_ms)
    call('PEXPIRE', keys[4], ledger_ms)
  end
  call('HSET', keys[3], ARGV[4], details_row)
  if not details and call('HLEN', keys[3]) == 1 then
    call('PEXPIRE', keys[3], ledger_ms)
  end
end
if for_user then
  write_user(keys[5], keys[6], keys[7], ARGV[4], user, for_user, given[own + 2], ledger_ms)
end

if given[6] == 1 then
  local order = #keys - (journal and 1 or 0)
  keep_record(
    keys[order - 1], keys[order], ARGV[of_record + 1], ARGV[of_record + 2], now, tonumber(ARGV[of_record + 3]),
    tonumber(ARGV[of_record + 4])
  )
end
if crossed then
  local notify, notify_of_user = notifications()
  local outbox, put_in = first_counter + dues, 0
  for _, one in ipairs(crossed) do
    if one.users > 0 then
      put_in = put_in + notify_of_user(keys[outbox], keys[outbox + one.users], one.percent, user)
    else
      put_in = put_in + notify(keys[outbox], one.key, one.percent, one.used)
    end
  end
  result[3], result[4] = put_in, #crossed - put_in
end
at = FIXED
for number = 1, dues do
  local key, text, counter = keys[first_counter + number - 1], texts[number], counters and counters[number]
  if counter then
    write(key, counter, holding[number], given[at + 2], given[at + 4], given[at + 5], step_ms)
  elseif lives and lives[number] then
    call('PSETEX', key, lives[number], text)
  elseif text and #text > #stored[number] then
    -- SETRANGE would reserve twice the memory of a string that grows.
    call('SET', key, text, 'KEEPTTL')
  elseif text then
    call('SETRANGE', key, starts[number] or '0', text)
  end
  at = at + OF_A_DUE
end
return result
