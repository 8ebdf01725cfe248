#!lua flags=allow-oom
-- Asks an incarnation to drain: written first, published second, so that one that is deaf reads it with its heartbeat.
--
-- KEYS  1 P:{i:I}
-- ARGV  1 control channel  2 I
-- RETURNS 1 it was asked; 0 it is dead or unknown
-- ATOMICITY  the order is written when it is heard, and is later than the one before.
local node = redis.call('HMGET', KEYS[1], 'state', 'ordered')
if node[1] ~= 'live' then return 0 end
local time = redis.call('TIME')
local given = math.max(time[1] * 1000 + math.floor(time[2] / 1000), (tonumber(node[2]) or 0) + 1)
redis.call('HSET', KEYS[1], 'drain', '1', 'ordered', string.format('%.0f', given))
redis.call('PUBLISH', ARGV[1], 'drain ' .. ARGV[2])
return 1
