-- Records a new run: meta, its first event, its places in the listings, all or nothing.
-- KEYS: meta, events, index, active, queued, archive news, then the idempotency key if there is one
-- ARGV: run id, created at (ms), first event's type, ts, payload, hash of the request, ttl (s) of the idempotency key,
--       maxlen of the archive's news, id of a run that nobody knows any more (its key is free) or '', then meta fields and values
-- Returns {'made', run id} | {'known', run id} (repeated: same id, or same key and request) | {'other'} (same key, other request)
if redis.call('EXISTS', KEYS[1]) == 1 then return {'known', ARGV[1]} end
if KEYS[7] then
  local before = redis.call('HMGET', KEYS[7], 'runId', 'request')
  if before[1] and before[1] ~= ARGV[9] then
    if before[2] == ARGV[6] then return {'known', before[1]} end
    return {'other', before[1]}
  end
  redis.call('HSET', KEYS[7], 'runId', ARGV[1], 'request', ARGV[6])
  redis.call('EXPIRE', KEYS[7], ARGV[7])
end
-- Who archives tells later how far they are. From the start they are waited for, if any was heard of in the last hour.
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[6])
for _, group in ipairs(groups.err and {} or groups) do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[6], group[2])
  for _, consumer in ipairs(consumers.err and {} or consumers) do
    for i = 1, #consumer, 2 do
      if consumer[i] == 'idle' and consumer[i + 1] < 3600000 then redis.call('HSET', KEYS[1], 'archivedSeq', 0) end
    end
  end
end
for i = 10, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[1], 'fence', 0, 'lastSeq', 1, 'status', 'queued')
redis.call('XADD', KEYS[2], '*', 'type', ARGV[3], 'ts', ARGV[4], 'runId', ARGV[1], 'seq', 1, 'payload', ARGV[5])
for i = 3, 5 do redis.call('ZADD', KEYS[i], ARGV[2], ARGV[1]) end
-- pcall: no run stops because the archive can't be told; its sweep finds the run.
redis.pcall('XADD', KEYS[6], 'MAXLEN', '~', ARGV[8], '*', 'runId', ARGV[1], 'seq', 1)
return {'made', ARGV[1]}
