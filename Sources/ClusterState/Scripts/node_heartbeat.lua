#!lua flags=allow-oom
-- A live incarnation renews its lease, also one that has lapsed and that nobody swept. Only state=dead fences.
--
-- KEYS  1 P:{i:I}
-- ARGV  1 lease (ms)  2 started at (ms)  3 sessions  4 rooms  5 draining (0 or 1)  6 control channel  7 I  8 address
--       9 weight  10 its URL for clients ('': none)  11 what it carries ('': it does not say)
--       12 ending: 1, 0, or 2 for 1 if the order to drain stands
--       13 the last order that it knows: 1 to drain, 0 not to ('': none)  14 when that was given (ms; -1: none)
--       15 the longest silence of a WebSocket (ms; '': it does not say)
-- RETURNS {1, the order that holds (1, 0, '': none), when that was given (ms; -1: none), the new end of the lease (ms)}
--         {0, '', '-1', '0'}  it is dead, unknown, or another process bears its number
-- ATOMICITY  lease and figures change together, and against node_claim: either the lease is renewed or it is swept.
--            The first heartbeat that says draining is announced, and the first that no longer does. Ending is
--            decided against node_undrain: whichever comes first holds. Of two orders the later holds: what the node
--            knows and Redis does not, a failover forgot, and it is written again.
local node = redis.call('HMGET', KEYS[1], 'state', 'started', 'draining', 'drain', 'ordered')
if node[1] ~= 'live' or node[2] ~= ARGV[2] then return { 0, '', '-1', '0' } end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = string.format('%.0f', now + tonumber(ARGV[1]))
-- Older versions write no time.
local order, given = node[4] or '', node[5] or (node[4] and '0' or '-1')
if tonumber(ARGV[14]) > tonumber(given) then
    order, given = ARGV[13], ARGV[14]
    redis.call('HSET', KEYS[1], 'drain', order, 'ordered', given)
end
local ending = ARGV[12]
if ending == '2' then ending = order == '1' and '1' or '0' end
redis.call('HSET', KEYS[1], 'lease', lease,
    'sessions', ARGV[3], 'rooms', ARGV[4], 'draining', ARGV[5], 'address', ARGV[8],
    'weight', ARGV[9], 'url', ARGV[10], 'silence', ARGV[15], 'traffic', ARGV[11], 'ending', ending,
    'told', string.format('%.0f', now))
if ARGV[5] == '1' and node[3] ~= '1' then redis.call('PUBLISH', ARGV[6], 'draining ' .. ARGV[7]) end
if ARGV[5] == '0' and node[3] == '1' then redis.call('PUBLISH', ARGV[6], 'up ' .. ARGV[7]) end
return { 1, order, given, lease }
