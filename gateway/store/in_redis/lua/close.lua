-- Closes the ledger of a team: what is settled later for a day before the first open one is settled for that one.
--
-- KEYS[1]  the days that the team's ledger has: a sorted set; the score of "closed" is the first open day
--
-- ARGV[1]  the first day that stays open, in milliseconds since 1970, as if its time zone were UTC
-- ARGV[2]  how long the ledger keeps a day, in milliseconds
--
-- Returns {1, now} where it is closed, {0, now} where the days before may still be going on somewhere.

local DAY_MS = 86400000

local open = tonumber(ARGV[1])
if now < open + DAY_MS then
  return { 0, now }
end
call('ZADD', KEYS[1], 'GT', open, 'closed')
if call('PTTL', KEYS[1]) < 0 then
  call('PEXPIRE', KEYS[1], ARGV[2])
end
return { 1, now }
