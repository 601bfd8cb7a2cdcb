-- Replaces what a reservation holds by what was used, and writes the bill, once.
--
-- KEYS[1]    the request's record: a hash of reservation id to what counter.lua says, or "s" once settled
-- KEYS[2]    the ledger of the team and the day: a hash of key and model to sums
-- KEYS[3]    the days that the team's ledger has: a sorted set, scored by when each began
-- KEYS[4]    how far a journal on disk has been replayed here
-- KEYS[5..]  the counters, one a due
-- ARGV[1]    reservation id
-- ARGV[2]    how long the record is kept, in milliseconds
-- ARGV[3]    the ledger's field, "" where there is nothing to bill
-- ARGV[4]    the day of the bill
-- ARGV[5]    numbers, eleven of the settlement:
--   length of a step of holds, in milliseconds
--   its place in the journal, 0 where it comes from none
--   how long the journal's mark is kept, in milliseconds
--   how long the ledger keeps a day, in milliseconds
--   what to bill: requests, input, cached input, output, reasoning and estimated tokens, micro-dollars
-- then five a due:
--   kind, amount held, amount used beyond what admission charged, and the two terms of its kind
--
-- Returns {1, now} where it settled, {0, now} where that had been done.

local BILL, COLUMNS = '<ddddddd', 7
local step_ms, place, mark_ms, ledger_ms, cursor = unpack_numbers('<dddd', ARGV[5])
local now = now_ms()
local step = floor(now / step_ms)

if place > 0 and place <= tonumber(call('GET', KEYS[4]) or '0') then
  return { 0, now }
end
local state = call('HGET', KEYS[1], ARGV[1])

-- Read all before anything is written: where somebody else has written to one of the keys, Redis ends the script with
-- an error, and half a settlement would count as a whole one.
local bill = { unpack_numbers(BILL, ARGV[5], cursor) }
cursor = bill[COLUMNS + 1]
local billed = state ~= SETTLED and ARGV[3] ~= '' and call('HGET', KEYS[2], ARGV[3])
local last = last_of(state)
local counters = {}
for number = 5, #KEYS do
  local kind, amount, extra, first, second
  kind, amount, extra, first, second, cursor = unpack_numbers('<ddddd', ARGV[5], cursor)
  if state ~= SETTLED and in_window(kind, first, second, now) then
    local counter = read(KEYS[number], kind, first, second, now, step)
    release(counter, last, amount)
    counter[1] = counter[1] + extra * counter[2]
    counters[#counters + 1] = { KEYS[number], counter, kind, first, second }
  end
end

if place > 0 then
  call('PSETEX', KEYS[4], mark_ms, string.format('%.0f', place))
end
if state == SETTLED then
  return { 0, now }
end
call('HSET', KEYS[1], ARGV[1], SETTLED)
-- A record that has the reservation got its expiry with it.
if not state then
  call('PEXPIRE', KEYS[1], ARGV[2])
end

if ARGV[3] ~= '' then
  if billed then
    local sums = { unpack_numbers(BILL, billed) }
    for column = 1, COLUMNS do
      bill[column] = bill[column] + sums[column]
    end
  end
  call('HSET', KEYS[2], ARGV[3], pack(BILL, unpack(bill, 1, COLUMNS)))
  if not billed and call('HLEN', KEYS[2]) == 1 then
    call('PEXPIRE', KEYS[2], ledger_ms)
    call('ZADD', KEYS[3], now, ARGV[4])
    call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - ledger_ms)
    call('PEXPIRE', KEYS[3], ledger_ms)
  end
end

for _, one in ipairs(counters) do
  write(one[1], one[2], one[3], one[4], one[5], step_ms)
end
return { 1, now }
