#!lua
-- Turns a room's epoch, because Redis was seen to have forgotten a tail of the log: positions in the old epoch prove nothing.
--
-- KEYS  1 meta
-- ARGV  1 the epoch that is to end  2 the next one
-- RETURNS the epoch that holds now: the next one, or what another put in the place of the first; '' there is no such room
-- ATOMICITY  compare and set. The log stays, since what Redis still has was said; the seq goes on.
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then return '' end
if epoch ~= ARGV[1] then return epoch end
redis.call('HSET', KEYS[1], 'epoch', ARGV[2])
return ARGV[2]
