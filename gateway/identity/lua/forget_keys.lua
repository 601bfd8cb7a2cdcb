-- Takes away keys that were revoked long ago.
--
-- KEYS[1]  the keys: a hash of JSON by their ids
-- KEYS[2]  the places of all keys in lists: a sorted set without scores
-- KEYS[3]  when each key was last used: a hash
-- KEYS[4]  the keys that are revoked: a sorted set of ids by the time of it
-- then, for each key, the places of the keys of its team
--
-- ARGV     for each key its id and its place
--
-- Returns {the number of keys, now}.

local call = redis.call
local FIXED_KEYS = 4

for number = 1, #ARGV / 2 do
  local id, place = ARGV[2 * number - 1], ARGV[2 * number]
  call('HDEL', KEYS[1], id)
  call('ZREM', KEYS[2], place)
  call('HDEL', KEYS[3], id)
  call('ZREM', KEYS[4], id)
  call('ZREM', KEYS[FIXED_KEYS + number], place)
end
local time = call('TIME')
return { #ARGV / 2, time[1] * 1000 + math.floor(time[2] / 1000) }
