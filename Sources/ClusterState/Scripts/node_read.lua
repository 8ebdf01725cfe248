#!lua flags=no-writes
-- What is true of an incarnation now.
--
-- KEYS  1 P:{i:I}
-- ARGV  none
-- RETURNS {} it is unknown; else {state, lease left (ms, negative when it is past), address, version, sessions, rooms,
--         draining, drain requested, started at, weight ('': it said none), URL for clients ('': none), age of the
--         figures (ms; 0 where it did not say when), since it registered (ms; '': it did not say when), what it carries
--         ('': it does not say), the longest silence of a WebSocket (ms; '': it does not say)}
-- ATOMICITY  the lease is compared with the clock of the Redis that holds it.
local node = redis.call('HMGET', KEYS[1], 'state', 'lease', 'address', 'version', 'sessions', 'rooms', 'draining',
    'drain', 'started', 'weight', 'url', 'told', 'registered', 'traffic', 'silence')
if not node[1] then return {} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return { node[1], string.format('%.0f', (tonumber(node[2]) or 0) - now), node[3] or '', node[4] or '', node[5] or '0',
    node[6] or '0', node[7] or '0', node[8] or '0', node[9] or '0', node[10] or '',
    node[11] or '', string.format('%.0f', now - (tonumber(node[12]) or now)),
    tonumber(node[13]) and string.format('%.0f', now - tonumber(node[13])) or '', node[14] or '', node[15] or '' }
