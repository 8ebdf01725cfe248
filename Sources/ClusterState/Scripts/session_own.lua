#!lua
-- A session gets its owner, on opening, or again by the same owner after Redis forgot it. It moves upward only.
--
-- KEYS  1 P:{s:S}
-- ARGV  1 I  2 generation  3 user  4 SHA-256 of its secret, hex (nothing: it cannot be resumed)  5 client  6 info
--       7 status  then two a room: r:ROOM, 1 (with echo) or 0
-- RETURNS the time (ms): I owns it; 0 another with a newer generation does, -1 I itself with a newer one: nothing changed
-- ATOMICITY  the generation is compared and everything written in one step; what an earlier owner wrote is gone.
local session = redis.call('HMGET', KEYS[1], 'owner', 'generation')
if session[2] and tonumber(session[2]) > tonumber(ARGV[2]) then return session[1] == ARGV[1] and -1 or 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'generation', ARGV[2], 'user', ARGV[3], 'secret', ARGV[4],
    'client', ARGV[5], 'info', ARGV[6], 'status', ARGV[7], unpack(ARGV, 8))
local time = redis.call('TIME')
return time[1] * 1000 + math.floor(time[2] / 1000)
