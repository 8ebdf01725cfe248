#!lua flags=allow-oom
-- The number of the next incarnation of any node: never given twice.
--
-- KEYS  1 P:incarnation
-- ARGV  none
-- RETURNS the number
-- ATOMICITY  one increment.
return redis.call('INCR', KEYS[1])
