-- Acknowledges events that are in the archive, parks those that were refused, and trims what nobody needs any more.
-- KEYS: 1 events, 2 projector's lease, 3 dead letters
-- ARGV: 1 projector, 2 1 = give the lease back, 3 TTL (s) of a response that has ended or '', 4 how many events are kept,
--       5 group, 6 response id, 7 maxlen of the dead letters, 8 number of ids, then the ids, then for each refused event:
--       id, event, code, reason
local count = tonumber(ARGV[8])
local acked = {}
for i = 9, 8 + count do acked[ARGV[i]] = redis.call('XACK', KEYS[1], ARGV[5], ARGV[i]) == 1 end
for i = 9 + count, #ARGV, 4 do
  -- Parked once, however often the call is repeated.
  if acked[ARGV[i]] then
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[7], '*', 'responseId', ARGV[6], 'entryId', ARGV[i],
      'event', ARGV[i + 1], 'code', ARGV[i + 2], 'reason', ARGV[i + 3])
  end
end
if ARGV[2] == '1' and redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if ARGV[3] ~= '' then redis.call('EXPIRE', KEYS[1], ARGV[3]) else redis.call('PERSIST', KEYS[1]) end
local length = redis.call('XLEN', KEYS[1])
if length <= tonumber(ARGV[4]) then return 0 end
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1]
local number = tonumber(string.match(newest, '^(%d+)%-0$'))
-- Numbers of events, not a foreign publisher's times: what is kept can be told from the number alone.
if not number or number > 100000000000 then return 0 end
local oldest = number - tonumber(ARGV[4]) + 1
local pending = redis.call('XPENDING', KEYS[1], ARGV[5])
if pending[1] > 0 then oldest = math.min(oldest, tonumber(string.match(pending[2], '^(%d+)-'))) end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  for i = 1, #group, 2 do
    if group[i] == 'last-delivered-id' then
      oldest = math.min(oldest, tonumber(string.match(group[i + 1], '^(%d+)-')) + 1)
    end
  end
end
return redis.call('XTRIM', KEYS[1], 'MINID', '~', string.format('%d-0', oldest))
