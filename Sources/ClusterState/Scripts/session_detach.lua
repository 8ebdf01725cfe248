#!lua flags=allow-oom
-- A session's connection is gone: until the end of the grace it may be resumed, and a minute later it is forgotten, should
-- its owner be gone too.
--
-- KEYS  1 P:{s:S}
-- ARGV  1 I  2 generation  3 grace (ms)
-- RETURNS 1 detached; 0 (I, generation) does not own it, and nothing changed
-- ATOMICITY  owner and generation are compared and the end is written in one step.
local session = redis.call('HMGET', KEYS[1], 'owner', 'generation')
if session[1] ~= ARGV[1] or session[2] ~= ARGV[2] then return 0 end
local time = redis.call('TIME')
local now, grace = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[3])
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + grace))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', grace + 60000))
return 1
