-- Takes away keys that were revoked long ago.
--
-- KEYS[1]  the keys: a hash of JSON by their ids
-- KEYS[2]  the places of all keys in lists: a sorted set without scores
-- KEYS[3]  when each key was last used: a hash
-- KEYS[4]  the keys that are revoked: a sorted set of ids by the time of it
-- KEYS[5]  the keys that took another's place: a sorted set without scores
-- then, for each key, the places of the keys of its team
--
-- ARGV     for each key its id, its place, and its place after the key whose place it took (empty where it took none)
--
-- Returns {the number of keys, now}.

local call = redis.call
local EACH, FIXED_KEYS = 3, 5

for number = 1, #ARGV / EACH do
  local id, place, after = unpack(ARGV, EACH * (number - 1) + 1, EACH * number)
  call('HDEL', KEYS[1], id)
  call('ZREM', KEYS[2], place)
  call('HDEL', KEYS[3], id)
  call('ZREM', KEYS[4], id)
  call('ZREM', KEYS[5], after)
  call('ZREM', KEYS[FIXED_KEYS + number], place)
end
local time = call('TIME')
return { #ARGV / EACH, time[1] * 1000 + math.floor(time[2] / 1000) }
