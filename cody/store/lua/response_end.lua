-- Ends a response from outside of its publisher, who is told so by its next write.
-- KEYS: 1 events, 2 publisher's lease, 3 active responses, 4 news
-- ARGV: 1 response id, 2 the last event, 3 1 = only if no publisher holds the lease, 4 maxlen of the news
-- Returns ok | held | ended | gone
local tail = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if #tail == 0 then
  redis.call('ZREM', KEYS[3], ARGV[1])
  return 'gone'
end
if not redis.call('ZSCORE', KEYS[3], ARGV[1]) then return 'ended' end
if ARGV[3] == '1' and redis.call('EXISTS', KEYS[2]) == 1 then return 'held' end
local number = tonumber(string.match(tail[1][1], '^(%d+)-')) + 1
redis.call('XADD', KEYS[1], string.format('%d-0', number), 'event', ARGV[2])
redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[4], '*', 'runId', ARGV[1], 'seq', number)
return 'ok'
