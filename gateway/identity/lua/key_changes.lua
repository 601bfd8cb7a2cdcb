-- Names the keys that have changed since a position in the stream of changes.
--
-- KEYS[1]  the changes: a stream, of which `k` are the ids of keys
--
-- ARGV[1]  the position: the id of a change, 0-0 where there was none yet, empty where none is known
-- ARGV[2]  how many changes are returned at most
--
-- Returns {1, now, the last change, ids, ids, ...}, each a list with spaces, or {0, now, the last change} where it
-- is not known: the change at the position is gone, as after a failover that lost it, or too many came since.

local call = redis.call

local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local position, most = ARGV[1], tonumber(ARGV[2])
local newest = call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local last = newest[1] and newest[1][1] or '0-0'
if position == last then
  return { 1, now_ms(), last }
end
local is_first = position == '0-0'
local entries = position ~= '' and call('XRANGE', KEYS[1], position, '+', 'COUNT', most + 2) or {}
if #entries > most + 1 or (not is_first and (not entries[1] or entries[1][1] ~= position)) then
  return { 0, now_ms(), last }
end
local reply = { 1, now_ms(), last }
for place = is_first and 1 or 2, #entries do
  reply[#reply + 1] = entries[place][2][2]
end
return reply
