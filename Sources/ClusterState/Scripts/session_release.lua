#!lua flags=allow-oom
-- A session ends, if it is still its caller's.
--
-- KEYS  1 P:{s:S}
-- ARGV  1 I  2 generation (-1: any of I's)
-- RETURNS 1 it is gone; 0 it is unknown or another incarnation owns it; -1 I owns it, but of a newer generation
-- ATOMICITY  compare and delete: of an end and a resume one happens.
local session = redis.call('HMGET', KEYS[1], 'owner', 'generation')
if session[1] ~= ARGV[1] then return 0 end
if ARGV[2] ~= '-1' and session[2] ~= ARGV[2] then return -1 end
return redis.call('DEL', KEYS[1])
