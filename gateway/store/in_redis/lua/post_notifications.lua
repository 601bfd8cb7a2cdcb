-- Puts notifications in, if no process has done so.
--
-- KEYS[1]  the notifications that wait: a sorted set, scored by when each is due
-- KEYS[2]  the flag
--
-- ARGV[1]  the condition: "raise", where the flag is not raised; "clear", where it is; "replace", where an entry waits
-- ARGV[2]  of "raise", for how long the flag is raised, in milliseconds; of "replace", the entry, which is taken out
-- ARGV[3]  how many may wait
-- ARGV[4]  how long they are kept, in milliseconds
-- ARGV[5..] the entries
--
-- Returns {1, now, dropped} where the condition held, else {0, now}.

local FIRST_ENTRY = 5

local function holds()
  if ARGV[1] == 'raise' then
    if call('SET', KEYS[2], '1', 'PX', ARGV[2], 'NX') then
      return true
    end
    call('PEXPIRE', KEYS[2], ARGV[2])
    return false
  elseif ARGV[1] == 'clear' then
    return call('DEL', KEYS[2]) == 1
  end
  return call('ZREM', KEYS[1], ARGV[2]) == 1
end

if not holds() then
  return { 0, now }
end
local dropped = 0
for number = FIRST_ENTRY, #ARGV do
  if call('ZCARD', KEYS[1]) < tonumber(ARGV[3]) then
    call('ZADD', KEYS[1], now, ARGV[number])
  else
    dropped = dropped + 1
  end
end
call('PEXPIRE', KEYS[1], ARGV[4])
return { 1, now, dropped }
