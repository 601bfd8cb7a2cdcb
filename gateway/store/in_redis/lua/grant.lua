-- Adds a grant to the counters of its limit, or takes it away; again is the same as once.
--
-- KEYS[..]  the counters: of a quota one for each window until the grant ends, else one
-- ARGV[1]   numbers:
--   the length of a step of holds in milliseconds, and the kind of the limit
--   the grant: its id, what it adds, 0 where it is taken away, when it ends, and of a rate its period, as counter.lua has
--   them
--   then of each counter the two terms of its kind
--
-- Returns {1, now}, or {0, now} where the grant has ended already.

local current, write = counter_functions()
local step_ms, kind, id, amount, ends, period, cursor = unpack_numbers('<dddddd', ARGV[1])
local step = floor(now / step_ms)

local function with_change(grants)
  local changed = {}
  for _, grant in ipairs(grants or {}) do
    if grant.id ~= id then
      changed[#changed + 1] = grant
    end
  end
  if amount > 0 then
    local place = #changed + 1
    while place > 1 and changed[place - 1].ends > ends do
      place = place - 1
    end
    table.insert(changed, place, { id = id, amount = amount, ends = ends, period = period })
  end
  return changed[1] and changed or nil
end

if ends <= now then
  return { 0, now }
end
for number = 1, #KEYS do
  local first, second
  first, second, cursor = unpack_numbers('<dd', ARGV[1], cursor)
  if kind ~= QUOTA or now < second then
    local counter, holding = current(KEYS[number], call('GET', KEYS[number]), kind, first, second, step)
    counter.grants = with_change(counter.grants)
    write(KEYS[number], counter, holding, kind, first, second, step_ms)
  end
end
return { 1, now }
