-- Gives the next events of a response to the one projector that owns it: first what was given out and not acknowledged
-- (its own, or that of one that died), then what nobody had yet. So the order is that of the stream.
-- KEYS: 1 events, 2 projector's lease   ARGV: 1 projector, 2 lease (ms), 3 how many, 4 group
-- Returns {ok, entries} | {held} | {gone}
local owner = redis.call('GET', KEYS[2])
if owner and owner ~= ARGV[1] then return {'held'} end
if redis.call('TYPE', KEYS[1]).ok ~= 'stream' then
  redis.call('DEL', KEYS[2])
  return {'gone'}
end
-- A stream that someone else began may have no group; BUSYGROUP is fine.
redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[4], '0')
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local count, entries, from = tonumber(ARGV[3]), {}, '0-0'
repeat
  local claimed = redis.call('XAUTOCLAIM', KEYS[1], ARGV[4], ARGV[1], 0, from, 'COUNT', count - #entries)
  for _, entry in ipairs(claimed[2]) do entries[#entries + 1] = entry end
  from = claimed[1]
until from == '0-0' or #entries >= count
if #entries < count then
  local found = redis.call('XREADGROUP', 'GROUP', ARGV[4], ARGV[1], 'COUNT', count - #entries, 'STREAMS', KEYS[1], '>')
  if found then
    for _, entry in ipairs(found[1][2]) do entries[#entries + 1] = entry end
  end
end
return {'ok', entries}
