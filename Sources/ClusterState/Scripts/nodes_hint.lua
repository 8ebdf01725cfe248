#!lua flags=allow-oom
-- Writes an incarnation into the hint by which others find it.
--
-- KEYS  1 P:nodes
-- ARGV  1 I  2 what the hint says of it
-- RETURNS 1 it is new there, 0 it was there
-- ATOMICITY  one field. Allowed when Redis is full: a plain HSET would not be.
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
