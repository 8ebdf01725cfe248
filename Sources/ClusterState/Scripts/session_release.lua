#!lua flags=allow-oom
-- A session ends, if it is still its caller's.
--
-- KEYS  1 P:{s:S}
-- ARGV  1 I
-- RETURNS 1 it is gone; 0 it is unknown or another incarnation owns it
-- ATOMICITY  compare and delete.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
