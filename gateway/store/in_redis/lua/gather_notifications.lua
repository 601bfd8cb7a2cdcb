-- Puts how many end users have crossed a threshold, and some of their names, into the place of the entry that waits for it.
--
-- KEYS[1]  the notifications that wait: a sorted set, scored by when each is due
-- KEYS[2]  the end users who crossed thresholds of the limit in this window: a hash, as settle.lua has it
--
-- ARGV[1]  the entry: "users", the counter, the window and the percent, a line each
-- ARGV[2]  the percent
-- ARGV[3]  how long both are kept, in milliseconds
--
-- Returns {1, now} where the entry waited, else {0, now}.

if call('ZREM', KEYS[1], ARGV[1]) == 0 then
  return { 0, now }
end
local count, names = ARGV[2], ARGV[2] .. ':names'
local users, named = call('HGET', KEYS[2], count), call('HGET', KEYS[2], names)
call('HDEL', KEYS[2], count, names)
local time = string.format('%.0f', now)
call('HSET', KEYS[2], ARGV[2] .. ':last', time)
call('PEXPIRE', KEYS[2], ARGV[3])
if users then
  local crossed = { 'crossed' .. string.sub(ARGV[1], #'users' + 1), time, users, named or nil }
  call('ZADD', KEYS[1], now, table.concat(crossed, '\n'))
  call('PEXPIRE', KEYS[1], ARGV[3])
end
return { 1, now }
