-- Renews the leases of one publisher; one that expired while Redis was away is taken again if the response still goes on.
-- KEYS: 1 active responses, then lease and events of each response   ARGV: 1 publisher, 2 lease (ms), then response ids
-- Returns one number a response: 1 ours, 0 not ours any more
local answer = {}
for i = 3, #ARGV do
  local lease, events = KEYS[2 * i - 4], KEYS[2 * i - 3]
  local owner = redis.call('GET', lease)
  if owner == ARGV[1] then
    redis.call('PEXPIRE', lease, ARGV[2])
    answer[i - 2] = 1
  elseif owner then
    answer[i - 2] = 0
  elseif redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('SET', lease, ARGV[1], 'PX', ARGV[2])
    answer[i - 2] = 1
  else
    -- Without a stream nothing was published yet, or Redis was wiped: both go on with the next event.
    answer[i - 2] = 1 - redis.call('EXISTS', events)
  end
end
return answer
