#!lua
-- A session gets its owner. It moves upward only.
--
-- KEYS  1 P:{s:S}
-- ARGV  1 I  2 generation  3 user
-- RETURNS 1 I owns it; 0 a newer generation does
-- ATOMICITY  the generation is compared and the owner written in one step.
local generation = redis.call('HGET', KEYS[1], 'generation')
if generation and tonumber(generation) > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'generation', ARGV[2], 'user', ARGV[3])
redis.call('PERSIST', KEYS[1])
return 1
