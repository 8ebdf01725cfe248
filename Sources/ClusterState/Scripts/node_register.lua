#!lua flags=allow-oom
-- A node's new incarnation comes alive.
--
-- KEYS  1 P:{i:I}
-- ARGV  1 lease (ms)  2 started at (ms)  3 address  4 version  5 sessions  6 rooms  7 draining (0 or 1)
--       8 weight  9 its URL for clients ('': none)  10 ending (0 or 1)
--       11 the last order that it knows: 1 to drain, 0 not to ('': none)  12 when that was given (ms)
--       13 the longest silence of a WebSocket (ms; '': it does not say)
-- RETURNS 1 it is live; 0 the number is taken by another process
-- ATOMICITY  one hash, written once.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'state', 'live', 'lease', string.format('%.0f', now + tonumber(ARGV[1])),
    'started', ARGV[2], 'address', ARGV[3], 'version', ARGV[4], 'sessions', ARGV[5], 'rooms', ARGV[6],
    'draining', ARGV[7], 'ending', ARGV[10], 'weight', ARGV[8], 'url', ARGV[9], 'silence', ARGV[13],
    'told', string.format('%.0f', now), 'registered', string.format('%.0f', now))
if ARGV[11] ~= '' then redis.call('HSET', KEYS[1], 'drain', ARGV[11], 'ordered', ARGV[12]) end
return 1
