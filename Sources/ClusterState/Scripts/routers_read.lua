#!lua flags=no-writes
-- The routers that hold their lease.
--
-- KEYS  1 P:routers
-- ARGV  none
-- RETURNS {id, lease left (ms), age of what it says (ms), what it says of itself, the next id …}
-- ATOMICITY  leases are compared with the clock of the Redis that holds them.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lines, routers = redis.call('HGETALL', KEYS[1]), {}
for index = 1, #lines, 2 do
    local lease, told, figures = string.match(lines[index + 1], '^(%d+) (%d+) (.*)$')
    if lease and tonumber(lease) > now then
        routers[#routers + 1] = lines[index]
        routers[#routers + 1] = string.format('%.0f', tonumber(lease) - now)
        routers[#routers + 1] = string.format('%.0f', math.max(0, now - tonumber(told)))
        routers[#routers + 1] = figures
    end
end
return routers
