#!lua flags=allow-oom
-- Orders that are past go. Nobody is told: everybody knows when they end.
--
-- KEYS  1 P:{orders}
-- ARGV  the orders: KIND SORT ROOM NAME, 100 at most
-- RETURNS how many went
-- ATOMICITY  the end is compared with the clock that wrote it: an order that was given again meanwhile stays.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local gone = 0
for _, order in ipairs(ARGV) do
    local ends = tonumber(string.match(redis.call('HGET', KEYS[1], order) or '', '^%d+ (%d+)')) or 0
    if ends ~= 0 and ends <= now then gone = gone + redis.call('HDEL', KEYS[1], order) end
end
return gone
