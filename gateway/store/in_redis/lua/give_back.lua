-- Takes an admission back, as if it had never been: another slot refused the request, or its answer was lost.
--
-- KEYS[1]    the request's record
-- KEYS[2..]  the counters, one a hold
-- ARGV[1]    reservation id
-- ARGV[2]    numbers: the length of a step of holds in milliseconds; then five a hold: kind, 1 if it was used at once
--   and not held, amount, and the two terms of its kind
--
-- Returns {1, now} where there was something to give back, else {0, now}.

local current, write = counter_functions()
local release, held, last_of, in_window = hold_functions()
local step_ms, cursor = unpack_numbers('<d', ARGV[2])
local step = floor(now / step_ms)

local last = last_of(call('HGET', KEYS[1], ARGV[1]))
if last == 0 then
  return { 0, now }
end
call('HDEL', KEYS[1], ARGV[1])

for number = 2, #KEYS do
  local kind, at_once, amount, first, second
  kind, at_once, amount, first, second, cursor = unpack_numbers('<ddddd', ARGV[2], cursor)
  if in_window(kind, first, second, now) then
    local counter = current(KEYS[number], call('GET', KEYS[number]), kind, first, second, step)
    if at_once == 1 then
      counter[USED] = math.max(0, counter[USED] - amount * counter[SCALE])
    else
      release(counter, last, amount)
    end
    write(KEYS[number], counter, held(counter), kind, first, second, step_ms)
  end
end
return { 1, now }
