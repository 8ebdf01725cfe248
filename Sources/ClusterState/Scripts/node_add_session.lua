#!lua flags=allow-oom
-- A session enters the index of an incarnation, before its own keys are written. Allowed when Redis is full, for a sweeper that
-- adopts; an opening or a resume is refused by the script behind this one.
--
-- KEYS  1 P:{i:I}  2 P:{i:I}:sessions
-- ARGV  1 session  2 user
-- RETURNS 1 it is in the index; 0 the incarnation is dead or unknown
-- ATOMICITY  the state is read and the index written in one step, so that a sweep misses no session.
if redis.call('HGET', KEYS[1], 'state') ~= 'live' then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return 1
