-- Takes a run's lock and a new fence.
-- KEYS: lock, meta
-- ARGV: worker id, ttl (ms), host
-- Returns {'ok', fence, worker before} | {'held', owner} | {'ended', status} | {'gone'}
local status = redis.call('HGET', KEYS[2], 'status')
if not status then return {'gone'} end
if status == 'completed' or status == 'failed' or status == 'cancelled' then return {'ended', status} end
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return {'held', redis.call('GET', KEYS[1])}
end
local before = redis.call('HGET', KEYS[2], 'workerId') or ''
local fence = redis.call('HINCRBY', KEYS[2], 'fence', 1)
redis.call('HSET', KEYS[2], 'workerId', ARGV[1], 'host', ARGV[3])
return {'ok', fence, before}
