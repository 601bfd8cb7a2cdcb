-- Writes keys and the line of the audit that says so, all or nothing, and tells those who listen.
--
-- KEYS[1]  the keys: a hash of JSON by their ids
-- KEYS[2]  the places of all keys in lists: a sorted set without scores
-- KEYS[3]  the changes: a stream, of which `k` are the ids of keys, `e` is the line of the audit
-- KEYS[4]  the keys that are revoked: a sorted set of ids by the time of it, in milliseconds
-- KEYS[5]  the keys that took another's place: a sorted set without scores
-- then, for each key, the places of the keys of its team
--
-- ARGV[1]  the line of the audit, as JSON
-- ARGV[2]  how many changes are kept
-- ARGV[3]  how long changes are kept after the last one, in milliseconds
-- ARGV[4]  the channel that is told of changes
-- then, for each key, its id, the revision that it is written over (0 for none), its JSON, its place, when it was
-- revoked, in milliseconds (0 where it is not), and its place after the key whose place it took (empty where it took none)
--
-- Returns {1, now, the id of the change} where all is written, {0, now} where a key has another revision.

local call = redis.call
local HEAD, EACH, FIXED_KEYS = 4, 6, 5

local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function revision(id)
  local key = call('HGET', KEYS[1], id)
  return key and (cjson.decode(key).revision or 1) or 0
end

local ids = {}
for place = HEAD + 1, #ARGV, EACH do
  if revision(ARGV[place]) ~= tonumber(ARGV[place + 1]) then
    return { 0, now_ms() }
  end
  ids[#ids + 1] = ARGV[place]
end
for number, id in ipairs(ids) do
  local place = HEAD + (number - 1) * EACH
  call('HSET', KEYS[1], id, ARGV[place + 3])
  call('ZADD', KEYS[2], 0, ARGV[place + 4])
  call('ZADD', KEYS[FIXED_KEYS + number], 0, ARGV[place + 4])
  if ARGV[place + 5] ~= '0' then
    call('ZADD', KEYS[4], ARGV[place + 5], id)
  end
  if ARGV[place + 6] ~= '' then
    call('ZADD', KEYS[5], 0, ARGV[place + 6])
  end
end
local change = call('XADD', KEYS[3], 'MAXLEN', ARGV[2], '*', 'k', table.concat(ids, ' '), 'e', ARGV[1])
call('PEXPIRE', KEYS[3], ARGV[3])
if #ids > 0 then
  -- A user who may not publish still may write: whoever listens asks now and then, too.
  redis.pcall('PUBLISH', ARGV[4], change)
end
return { 1, now_ms(), change }
