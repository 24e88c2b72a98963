-- Records a new run: meta, its first event, its place in the index, all or nothing.
-- KEYS: meta, events, index
-- ARGV: run id, created at (ms), first event's type, ts, payload, then meta fields and values
-- Returns 1, or 0 when the id is taken (a retried call whose reply was lost).
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
for i = 6, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[1], 'fence', 0, 'lastSeq', 1, 'status', 'queued')
redis.call('XADD', KEYS[2], '*', 'type', ARGV[3], 'ts', ARGV[4], 'runId', ARGV[1], 'seq', 1, 'payload', ARGV[5])
redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
return 1
