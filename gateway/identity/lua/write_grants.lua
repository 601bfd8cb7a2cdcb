-- Writes or removes a grant and the line of the audit that says so, all or nothing.
--
-- KEYS[1]  the grants: a hash of JSON by their ids
-- KEYS[2]  the changes: a stream, of which `k` are the ids of keys, here none, `e` is the line of the audit
--
-- ARGV[1]  the line of the audit, as JSON
-- ARGV[2]  how many changes are kept
-- ARGV[3]  how long changes and grants are kept after the last one, in milliseconds
-- ARGV[4]  the ids of the grants that are removed, with spaces between them
-- ARGV[5]  the id of the grant that is written, where one is
-- ARGV[6]  its JSON
-- ARGV[7]  the ids of all grants that there must be before, with spaces between them; left out: whichever there are
--
-- Returns {1, now, the id of the change}, or {0, now} where nothing is written: there was nothing to remove, or there
-- are other grants.

local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

if ARGV[7] then
  local seen = 0
  for id in string.gmatch(ARGV[7], '%S+') do
    seen = seen + 1
    if call('HEXISTS', KEYS[1], id) == 0 then return { 0, now } end
  end
  if call('HLEN', KEYS[1]) ~= seen then return { 0, now } end
end

local removed = 0
for id in string.gmatch(ARGV[4], '%S+') do
  removed = removed + call('HDEL', KEYS[1], id)
end
if ARGV[5] then
  call('HSET', KEYS[1], ARGV[5], ARGV[6])
elseif removed == 0 then
  return { 0, now }
end
call('PEXPIRE', KEYS[1], ARGV[3])
local change = call('XADD', KEYS[2], 'MAXLEN', ARGV[2], '*', 'k', '', 'e', ARGV[1])
call('PEXPIRE', KEYS[2], ARGV[3])
return { 1, now, change }
