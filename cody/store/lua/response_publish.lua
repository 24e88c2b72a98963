-- Adds events of one response, numbered from 1 without a gap (entry n has the id n-0), under the publisher's lease.
-- KEYS: 1 events, 2 publisher's lease, 3 active responses, 4 news, 5 (with the first events only) the thread's responses
-- ARGV: 1 publisher, 2 lease (ms), 3 number of the first event, 4 how many, 5 response id, 6 group, 7 1 = the last one ends
--       the response, 8 maxlen of the news, 9 how many responses a thread keeps, 10 TTL of the thread (s), then the events
-- Returns {answer, last number} with answer ok | duplicate | fenced | ended
local id, first, count = ARGV[5], tonumber(ARGV[3]), tonumber(ARGV[4])
local tail = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local last = 0
if #tail > 0 then last = tonumber(string.match(tail[1][1], '^(%d+)-')) end
-- A repeated call after a lost reply: all of it is here already.
if first + count - 1 <= last then return {'duplicate', last} end
local owner = redis.call('GET', KEYS[2])
if owner and owner ~= ARGV[1] then return {'fenced', last} end
-- Ended by someone else: aborted, or given up for dead. Without a stream Redis was wiped: what follows is kept.
if first > 1 and last > 0 and not redis.call('ZSCORE', KEYS[3], id) then return {'ended', last} end
-- The group comes before the first event, whoever reads first; BUSYGROUP is fine.
if last == 0 or first == 1 then redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[6], '0', 'MKSTREAM') end
for i = 0, count - 1 do
  local number = first + i
  if number > last then redis.call('XADD', KEYS[1], string.format('%d-0', number), 'event', ARGV[11 + i]) end
end
last = first + count - 1
local time = redis.call('TIME')
if ARGV[7] == '1' then
  redis.call('DEL', KEYS[2])
  redis.call('ZREM', KEYS[3], id)
else
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
  redis.call('ZADD', KEYS[3], 'NX', time[1], id)
end
if KEYS[5] then
  redis.call('ZADD', KEYS[5], 'NX', time[1] .. string.format('%06d', time[2]), id)
  redis.call('ZREMRANGEBYRANK', KEYS[5], 0, -1 - tonumber(ARGV[9]))
  redis.call('EXPIRE', KEYS[5], ARGV[10])
end
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[8], '*', 'runId', id, 'seq', last)
return {'ok', last}
