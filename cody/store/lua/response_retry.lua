-- Puts a parked event at the end of its response's stream, once.
-- KEYS: 1 dead letters, 2 events, 3 news   ARGV: 1 id of the letter, 2 response id, 3 group, 4 maxlen of the news
-- Returns 1, or 0 when there is no such letter
local letter = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not letter then return 0 end
local event
for i = 1, #letter[2], 2 do
  if letter[2][i] == 'event' then event = letter[2][i + 1] end
end
local tail = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local number = 1
if #tail > 0 then number = tonumber(string.match(tail[1][1], '^(%d+)-')) + 1 end
redis.pcall('XGROUP', 'CREATE', KEYS[2], ARGV[3], '0', 'MKSTREAM')
redis.call('XADD', KEYS[2], string.format('%d-0', number), 'event', event)
redis.call('XDEL', KEYS[1], ARGV[1])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[4], '*', 'runId', ARGV[2], 'seq', number)
return 1
