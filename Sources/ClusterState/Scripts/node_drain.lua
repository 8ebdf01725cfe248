#!lua flags=allow-oom
-- Asks an incarnation to drain: written first, published second, so that one that is deaf reads it with its heartbeat.
--
-- KEYS  1 P:{i:I}
-- ARGV  1 control channel  2 I
-- RETURNS 1 it was asked; 0 it is dead or unknown
-- ATOMICITY  the order is written when it is heard.
if redis.call('HGET', KEYS[1], 'state') ~= 'live' then return 0 end
redis.call('HSET', KEYS[1], 'drain', '1')
redis.call('PUBLISH', ARGV[1], 'drain ' .. ARGV[2])
return 1
