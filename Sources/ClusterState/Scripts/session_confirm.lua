#!lua flags=allow-oom
-- The client has the new secret: the one before is no longer good.
--
-- KEYS  1 P:{s:S}
-- ARGV  1 I  2 generation
-- RETURNS 1 done, or done before; 0 (I, generation) does not own it, and nothing changed
-- ATOMICITY  owner and generation are compared and the secret dropped in one step, so that a later resume keeps its own.
local session = redis.call('HMGET', KEYS[1], 'owner', 'generation')
if session[1] ~= ARGV[1] or session[2] ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], 'previous')
return 1
