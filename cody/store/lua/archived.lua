-- Tells how far the archive has a run; commit.lua keeps what comes after it.
-- KEYS: meta   ARGV: the last seq that the archive has, or '' when it has stopped for good
-- Returns 1, or 0 when there is no such run any more: it must not come back as a hash of one field.
if redis.call('HEXISTS', KEYS[1], 'status') == 0 then return 0 end
if ARGV[1] == '' then redis.call('HDEL', KEYS[1], 'archivedSeq') else redis.call('HSET', KEYS[1], 'archivedSeq', ARGV[1]) end
return 1
