#!lua
-- A private room has something new: a hint for nodes that could not hear it.
--
-- KEYS  1 P:{u:USER}:directs
-- ARGV  1 room
-- RETURNS 1
-- ATOMICITY  the time is Redis's own. The newest 200 rooms are kept, for a day.
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)), ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -201)
redis.call('EXPIRE', KEYS[1], 86400)
return 1
