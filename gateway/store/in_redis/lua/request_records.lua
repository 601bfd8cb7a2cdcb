-- How settle.lua and keep_records.lua write the request records of a team: this text is put in front of them.
--
-- A team has two keys: a hash of request id to its records as JSON, the newest last and line feeds between them, and a
-- sorted set of these ids, scored by when the last one was written. Nothing here ends a script with an error, since a
-- record must not hold up a settlement: where somebody else has written to one of the keys, no record is kept.

-- Records under one id; clients may choose it.
local ALIKE_MAX = 4
-- What one call removes at most, so that Redis does something else soon.
local REMOVED_AT_ONCE = 100

local function keep_record(records, order, id, record, now, keep_ms, most)
  local function remove_records(ids)
    if #ids > 0 then
      redis.pcall('HDEL', records, unpack(ids))
      redis.pcall('ZREM', order, unpack(ids))
    end
  end

  local old = redis.pcall('ZRANGEBYSCORE', order, '-inf', now - keep_ms, 'LIMIT', 0, REMOVED_AT_ONCE)
  if old.err then
    return
  end
  remove_records(old)
  local before = redis.pcall('HGET', records, id)
  if type(before) == 'table' then
    return
  end
  local over = redis.pcall('ZCARD', order) + (before and 0 or 1) - most
  if over > 0 then
    remove_records(redis.pcall('ZRANGE', order, 0, math.min(over, REMOVED_AT_ONCE) - 1))
  end
  if before then
    local _, feeds = string.gsub(before, '\n', '')
    if feeds + 2 > ALIKE_MAX then
      before = string.match(before, '\n(.*)')
    end
    record = before .. '\n' .. record
  end
  redis.pcall('HSET', records, id, record)
  redis.pcall('ZADD', order, now, id)
  redis.pcall('PEXPIRE', records, keep_ms)
  redis.pcall('PEXPIRE', order, keep_ms)
end
