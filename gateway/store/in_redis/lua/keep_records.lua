-- Keeps records of requests of one team that have no settlement.
--
-- KEYS[1]  the team's records: a hash
-- KEYS[2]  their order: a sorted set; request_records.lua says what both have
--
-- ARGV[1]  how long records are kept, in milliseconds
-- ARGV[2]  how many records the team may have
-- then two a record: its request id, and the record as JSON
--
-- Returns {how many were given, now}.

for at = 3, #ARGV, 2 do
  keep_record(KEYS[1], KEYS[2], ARGV[at], ARGV[at + 1], now, tonumber(ARGV[1]), tonumber(ARGV[2]))
end
return { (#ARGV - 2) / 2, now }
