-- How scripts give back what is held: this text is put behind counter.lua, in front of those that end or move holds.

local SETTLED = 's'

-- The functions that find, give back and add up what is held.
local function hold_functions()
  local function in_window(kind, first, second, now)
    return kind ~= QUOTA or (first <= now and now < second)
  end

  -- A record is "LAST GRANTED" while the reservation is open: its holds end with that step. For each shadow limit that
  -- bears something else than an enforced one would, and for each limit that grants raise, " NUMBER AMOUNT" follows: its
  -- key, and what it bears, -1 for nothing. 0 for any other record.
  local function last_of(record)
    return record and tonumber(string.match(record, '^%d+')) or 0
  end

  -- Takes the amount out of the sum that ends with `last`: of the last one where the clock was set back since. What that
  -- does not have is in an earlier one: a clock that was set back had moved it. Nothing is given back where the hold has
  -- ended by itself.
  local function release(counter, last, amount)
    local place = last - counter[OVER]
    if place <= 0 then
      return
    end
    place = OVER + (place < STEPS and place or STEPS)
    while amount > counter[place] and place > FIRST do
      amount = amount - counter[place]
      counter[place] = 0
      place = place - 1
    end
    counter[place] = math.max(0, counter[place] - amount)
  end

  local function held(counter)
    return counter[6] + counter[7] + counter[8] + counter[9] + counter[10] + counter[11]
  end

  return release, held, last_of, in_window
end
