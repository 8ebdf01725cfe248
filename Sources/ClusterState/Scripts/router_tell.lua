#!lua flags=allow-oom
-- A router says that it is there, and what it does. Those that have not said so within their lease go.
--
-- KEYS  1 P:routers
-- ARGV  1 the router's id  2 lease (ms; 0: it ends)  3 what it says of itself
-- RETURNS how many routers hold their lease
-- ATOMICITY  its own line is written and those whose lease is past are removed in one step. The key lives as long as the
--            longest lease in it, so that nothing stays of routers that are all gone.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[2] == '0' then
    redis.call('HDEL', KEYS[1], ARGV[1])
else
    redis.call('HSET', KEYS[1], ARGV[1],
        string.format('%.0f %.0f ', now + tonumber(ARGV[2]), now) .. ARGV[3])
end
local lines, held, last = redis.call('HGETALL', KEYS[1]), 0, now
for index = 1, #lines, 2 do
    local lease = tonumber(string.match(lines[index + 1], '^(%d+) '))
    if lease and lease > now then
        held, last = held + 1, math.max(last, lease)
    else
        redis.call('HDEL', KEYS[1], lines[index])
    end
end
if held > 0 then redis.call('PEXPIRE', KEYS[1], string.format('%.0f', last - now)) end
return held
