-- The one way a worker writes: events, meta, turn record and status together, or nothing.
-- KEYS: meta, events, turns, active, queued, archive news, then (only at the run's end) the other keys of the run
-- ARGV: 1 fence, 2 first seq, 3 number of events, 4 number of meta values (fields and values), 5 expected status or '',
--       6 turn number or '', 7 turn record, 8 maxlen, 9 run id, 10 ttl (s) at the run's end (0 = none: the archive sets it) or '',
--       11 maxlen of the archive's news, 12 maxlen of what the archive does not have yet,
--       13 how many turn records to keep, then type, ts, payload of each event, then meta fields and values
-- Returns {answer, last seq, status, last seq that the archive told of or -1}
--         with answer ok | duplicate | gap | fenced | conflict | gone
local state = redis.call('HMGET', KEYS[1], 'fence', 'lastSeq', 'status', 'archivedSeq')
if not state[1] then return {'gone', 0, '', -1} end
local last, archived = tonumber(state[2]), tonumber(state[4]) or -1
-- A frozen worker that comes back writes nothing: its fence is old.
if tonumber(state[1]) ~= tonumber(ARGV[1]) then return {'fenced', last, state[3], archived} end
local first, count = tonumber(ARGV[2]), tonumber(ARGV[3])
if count > 0 then
  if first > last + 1 then return {'gap', last, state[3], archived} end
  -- A repeated call after a lost reply: all of it is here already, the meta written with it too.
  if first + count - 1 <= last then return {'duplicate', last, state[3], archived} end
end
if ARGV[5] ~= '' and ARGV[5] ~= state[3] then return {'conflict', last, state[3], archived} end
local maxlen = tonumber(ARGV[8])
-- Redis is the only place that has these: an archive that is behind is waited for, up to a bound. -1: nobody archives.
if archived >= 0 then maxlen = math.max(maxlen, math.min(first + count - 1 - archived, tonumber(ARGV[12]))) end
local at = 14
for i = 0, count - 1 do
  local seq = first + i
  if seq > last then
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', maxlen, '*', 'type', ARGV[at], 'ts', ARGV[at + 1],
      'runId', ARGV[9], 'seq', seq, 'payload', ARGV[at + 2])
  end
  at = at + 3
end
if count > 0 then
  last = first + count - 1
  redis.call('HSET', KEYS[1], 'lastSeq', last)
end
for i = at, at + tonumber(ARGV[4]) - 1, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i])
  else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
if ARGV[6] ~= '' then
  redis.call('HSET', KEYS[3], ARGV[6], ARGV[7])
  local kept = tonumber(ARGV[13])
  -- A turn has an event at least: of an archive that is fewer events behind, a turn so far back is in it.
  if archived < 0 or last - archived < kept then
    local old, oldest = ARGV[6] - kept, ARGV[6] - kept - 1000
    while old > oldest and redis.call('HDEL', KEYS[3], old) == 1 do old = old - 1 end
  end
end
local status = redis.call('HGET', KEYS[1], 'status')
if state[3] == 'queued' and status ~= 'queued' then redis.call('ZREM', KEYS[5], ARGV[9]) end
if ARGV[10] ~= '' then
  redis.call('ZREM', KEYS[4], ARGV[9])
  redis.call('ZREM', KEYS[5], ARGV[9])
  for i, key in ipairs(KEYS) do
    if tonumber(ARGV[10]) > 0 and (i < 4 or i > 6) then redis.call('EXPIRE', key, ARGV[10]) end
  end
end
-- pcall: no run stops because the archive can't be told; its sweep finds the run.
redis.pcall('XADD', KEYS[6], 'MAXLEN', '~', ARGV[11], '*', 'runId', ARGV[9], 'seq', last)
return {'ok', last, status, archived}
