#!lua flags=no-writes
-- The private rooms that had something new lately.
--
-- KEYS  1 P:{u:USER}:directs
-- ARGV  1 how long ago at most (ms)
-- RETURNS {now (ms), room, …}, at most 200
-- ATOMICITY  compared with the clock that wrote the times.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local rooms = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('%.0f', now - tonumber(ARGV[1])), '+inf')
return { string.format('%.0f', now), unpack(rooms) }
