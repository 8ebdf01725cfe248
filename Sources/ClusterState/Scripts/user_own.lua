#!lua flags=allow-oom
-- A session enters the list of its user's, or moves there to another owner. Upward only: of two that resumed it one right
-- after the other, the later stays.
--
-- KEYS  1 P:{u:USER}:sessions
-- ARGV  1 session  2 I  3 generation
-- RETURNS 1 it stands there; 0 a newer generation does
-- ATOMICITY  the generation is compared and the line written in one step.
local generation = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', ' (%d+)$')
if generation and tonumber(generation) > tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
return 1
