#!lua flags=allow-oom
-- A session leaves the list of its user's, if it is still its caller's.
--
-- KEYS  1 P:{u:USER}:sessions
-- ARGV  1 I  2 session
-- RETURNS 1 it is gone; 0 it was not there or stands on another incarnation
-- ATOMICITY  compare and delete.
local owner = string.match(redis.call('HGET', KEYS[1], ARGV[2]) or '', '^(%S+) %d+$')
if owner ~= ARGV[1] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[2])
