-- Puts a parked event at the end of its response's stream, once.
-- KEYS: 1 dead letters, 2 events, 3 news, 4 active responses
-- ARGV: 1 id of the letter, 2 response id, 3 group, 4 maxlen of the news
-- Returns ok | none (no such letter) | live | gone; the letter stays in all but the first case
local letter = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not letter then return 'none' end
-- The next number is its publisher's, whose next event would be taken for a repeated one.
if redis.call('ZSCORE', KEYS[4], ARGV[2]) then return 'live' end
-- A stream begun anew would have numbers that the archive has behind it: the event would be acknowledged unseen.
local tail = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
if #tail == 0 then return 'gone' end
local event
for i = 1, #letter[2], 2 do
  if letter[2][i] == 'event' then event = letter[2][i + 1] end
end
local number = tonumber(string.match(tail[1][1], '^(%d+)-')) + 1
redis.pcall('XGROUP', 'CREATE', KEYS[2], ARGV[3], '0')
redis.call('XADD', KEYS[2], string.format('%d-0', number), 'event', event)
redis.call('XDEL', KEYS[1], ARGV[1])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[4], '*', 'runId', ARGV[2], 'seq', number)
return 'ok'
