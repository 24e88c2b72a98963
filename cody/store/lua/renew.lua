-- Renews the locks of one worker in one call.
-- KEYS: locks   ARGV: worker id, ttl (ms)
-- Returns one number a lock: 1 renewed, 0 not ours any more.
local answer = {}
for i, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then
    redis.call('PEXPIRE', key, ARGV[2])
    answer[i] = 1
  else
    answer[i] = 0
  end
end
return answer
