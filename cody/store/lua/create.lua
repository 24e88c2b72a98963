-- Records a new run: meta, its first event, its places in the listings, all or nothing.
-- KEYS: meta, events, index, active, queued, archive news, then the idempotency key if there is one
-- ARGV: run id, created at (ms), first event's type, ts, payload, hash of the request, ttl (s) of the idempotency key,
--       maxlen of the archive's news, then meta fields and values
-- Returns {'made', run id} | {'known', run id} (repeated: same id, or same key and request) | {'other'} (same key, other request)
if redis.call('EXISTS', KEYS[1]) == 1 then return {'known', ARGV[1]} end
if KEYS[7] then
  local before = redis.call('HMGET', KEYS[7], 'runId', 'request')
  if before[1] then
    if before[2] == ARGV[6] then return {'known', before[1]} end
    return {'other', before[1]}
  end
  redis.call('HSET', KEYS[7], 'runId', ARGV[1], 'request', ARGV[6])
  redis.call('EXPIRE', KEYS[7], ARGV[7])
end
for i = 9, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[1], 'fence', 0, 'lastSeq', 1, 'status', 'queued')
redis.call('XADD', KEYS[2], '*', 'type', ARGV[3], 'ts', ARGV[4], 'runId', ARGV[1], 'seq', 1, 'payload', ARGV[5])
for i = 3, 5 do redis.call('ZADD', KEYS[i], ARGV[2], ARGV[1]) end
-- pcall: no run stops because the archive can't be told; its sweep finds the run.
redis.pcall('XADD', KEYS[6], 'MAXLEN', '~', ARGV[8], '*', 'runId', ARGV[1], 'seq', 1)
return {'made', ARGV[1]}
