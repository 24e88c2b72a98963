-- One page of runs, newest first, in one round trip.
-- KEYS: index
-- ARGV: limit, status or '', epic id or '', score before or '+inf', id before or '', key prefix, how many ids to look at, now (ms)
-- Returns {score and id to go on from or '', then per run: id, subscribers, flat meta (none: a key of it can't be read)}
local limit, looks = tonumber(ARGV[1]), tonumber(ARGV[7])
local rows, seen, score, id = {}, 0, ARGV[4], ARGV[5]
local page, offset, last = 200, 0, ''
while #rows < limit and seen < looks do
  local found = redis.call('ZREVRANGEBYSCORE', KEYS[1], score, '-inf', 'WITHSCORES', 'LIMIT', offset, page)
  if #found == 0 then last = '' break end
  for i = 1, #found, 2 do
    local run, at = found[i], found[i + 1]
    -- Runs of the same millisecond are ordered by id, backwards; those before the cursor were on an earlier page.
    if not (id ~= '' and at == ARGV[4] and run >= id) then
      seen = seen + 1
      last = at .. ':' .. run
      local meta = ARGV[6] .. run .. ':meta'
      -- pcall: a key of another type must not hide all the other runs.
      local head = redis.pcall('HMGET', meta, 'status', 'epicId')
      if head.err then
        rows[#rows + 1] = {run, 0, {}}
        if #rows == limit then break end
      elseif not head[1] then
        -- The run has expired: forget its place.
        redis.call('ZREM', KEYS[1], run)
        offset = offset - 1
      elseif (ARGV[2] == '' or head[1] == ARGV[2]) and (ARGV[3] == '' or head[2] == ARGV[3]) then
        local live = redis.pcall('ZCOUNT', ARGV[6] .. run .. ':subscribers', ARGV[8], '+inf')
        if type(live) ~= 'number' then live = 0 end
        rows[#rows + 1] = {run, live, redis.call('HGETALL', meta)}
        if #rows == limit then break end
      end
      if seen >= looks then break end
    end
  end
  offset = offset + page
end
-- Is there anything after the last one looked at?
if last ~= '' then
  local cut = string.find(last, ':', 1, true)
  local after_score, after_id = string.sub(last, 1, cut - 1), string.sub(last, cut + 1)
  local rest = redis.call('ZREVRANGEBYSCORE', KEYS[1], after_score, '-inf', 'LIMIT', 0, 1000)
  local more = false
  for _, run in ipairs(rest) do
    if run < after_id or tonumber(redis.call('ZSCORE', KEYS[1], run)) < tonumber(after_score) then more = true break end
  end
  if not more then last = '' end
end
return {last, rows}
