-- Starts the TTL of a run that has ended and that the archive has whole.
-- KEYS: meta, then the other keys of the run   ARGV: ttl (s), last seq that the archive has
-- Returns 'ok' | 'gone' | 'going' (it has not ended) | 'behind' (there are newer events)
local state = redis.call('HMGET', KEYS[1], 'status', 'lastSeq')
if not state[1] then return 'gone' end
if state[1] ~= 'completed' and state[1] ~= 'failed' and state[1] ~= 'cancelled' then return 'going' end
if (tonumber(state[2]) or 0) > tonumber(ARGV[2]) then return 'behind' end
-- LT: a repeated call doesn't give the run more time; no TTL at all counts as longer than any.
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[1], 'LT') end
return 'ok'
