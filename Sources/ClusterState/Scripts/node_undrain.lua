#!lua flags=allow-oom
-- Takes an order to drain back: written first, published second, so that one that is deaf reads it with its heartbeat.
--
-- KEYS  1 P:{i:I}
-- ARGV  1 control channel  2 I
-- RETURNS 1 it is taken back; 2 there was none to take back; 0 the node is dead or unknown; -1 it is ending;
--         -2 it is of a version that goes on whatever is said
-- ATOMICITY  against the heartbeat that says "ending": whichever comes first holds. Later than the order before. Told again
--            where there was none, for a node that did not hear it; one that drains and is not ending was ordered to, though
--            Redis may have forgotten that.
local node = redis.call('HMGET', KEYS[1], 'state', 'ending', 'drain', 'ordered', 'draining')
if node[1] ~= 'live' then return 0 end
if not node[2] then return -2 end
if node[2] == '1' then return -1 end
local time = redis.call('TIME')
local given = math.max(time[1] * 1000 + math.floor(time[2] / 1000), (tonumber(node[4]) or 0) + 1)
redis.call('HSET', KEYS[1], 'drain', '0', 'ordered', string.format('%.0f', given))
redis.call('PUBLISH', ARGV[1], 'undrain ' .. ARGV[2])
return (node[3] or node[5]) == '1' and 1 or 2
