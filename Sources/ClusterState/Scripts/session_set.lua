#!lua flags=allow-oom
-- Rooms and status of a session, as a resume will find them. Allowed when Redis is full, so that a room that was left does
-- not come back with a resume; a room gets in only with a join, which is not allowed then.
--
-- KEYS  1 P:{s:S}
-- ARGV  1 I  2 generation  then two a field: r:ROOM, 1 (with echo), 0 or nothing (it was left); or status and what it is
-- RETURNS 1 written; 0 (I, generation) does not own it, and nothing changed
-- ATOMICITY  owner and generation are compared and the fields written in one step.
local session = redis.call('HMGET', KEYS[1], 'owner', 'generation')
if session[1] ~= ARGV[1] or session[2] ~= ARGV[2] then return 0 end
for index = 3, #ARGV, 2 do
    if ARGV[index + 1] == '' then
        redis.call('HDEL', KEYS[1], ARGV[index])
    else
        redis.call('HSET', KEYS[1], ARGV[index], ARGV[index + 1])
    end
end
return 1
