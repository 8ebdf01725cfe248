#!lua flags=no-writes
-- The private rooms that had something new lately.
--
-- KEYS  1 P:{u:USER}:directs
-- ARGV  1 'within' | 'since'  2 how long ago at most (ms) | a time (ms)
-- RETURNS {now (ms), room, …}, at most 200
-- ATOMICITY  compared with the clock that wrote the times.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local from = ARGV[1] == 'since' and tonumber(ARGV[2]) or now - tonumber(ARGV[2])
local rooms = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('%.0f', from), '+inf')
return { string.format('%.0f', now), unpack(rooms) }
