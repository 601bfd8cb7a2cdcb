-- Gives notifications that are due to one deliverer for a while.
--
-- KEYS[1]  the notifications that wait: a sorted set, scored by when each is due
--
-- ARGV[1]  how many at most
-- ARGV[2]  how long no other process gets them, in milliseconds
--
-- Returns {waiting, now, entry, …}.

local due = call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, entry in ipairs(due) do
  call('ZADD', KEYS[1], now + ARGV[2], entry)
end
return { call('ZCARD', KEYS[1]), now, unpack(due) }
