-- Accepts a control message: status and message together, and only from the status that the caller decided on.
-- KEYS: meta, ctl
-- ARGV: expected status, new status, action, reason, now (ISO), maxlen
-- Returns {'ok', id of the message} | {'conflict', status} | {'gone'}
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return {'gone'} end
if status ~= ARGV[1] then return {'conflict', status} end
-- First what may fail (a key of another type): a status without its message would never be acted on.
local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], '*', 'action', ARGV[3], 'reason', ARGV[4], 'ts', ARGV[5])
redis.call('HSET', KEYS[1], 'status', ARGV[2], 'updatedAt', ARGV[5])
if ARGV[4] == '' then redis.call('HDEL', KEYS[1], 'reason') else redis.call('HSET', KEYS[1], 'reason', ARGV[4]) end
return {'ok', id}
