#!lua flags=no-writes
-- Which orders are in force, by one word, and what time it is by the clock that they end by.
--
-- KEYS  1 P:{orders}
-- ARGV  none
-- RETURNS {version (nothing: there never was an order), now (ms)}
-- ATOMICITY  a version begins with the time of its change, so that a Redis which forgot some never comes to the same one.
local time = redis.call('TIME')
return { redis.call('HGET', KEYS[1], 'version') or '', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)) }
