#!lua
-- A node says how much a user sends through it, and hears how much they send through the others. Each node does so once a second
-- for those who send much, and holds them to its part of their limit by itself.
--
-- KEYS  1 P:{u:USER}:rate
-- ARGV  1 I  2 messages a second through I
-- RETURNS messages a second through all others, as they said within the last 3 s
-- ATOMICITY  one's own line is written and the others' are read in one step; what is older than 3 s goes. The key lives 6 s.
local time = redis.call('TIME')
local now, others = time[1] * 1000 + math.floor(time[2] / 1000), 0
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], 6000)
local fields = redis.call('HGETALL', KEYS[1])
for index = 1, #fields, 2 do
    local rate, at = string.match(fields[index + 1], '^(%d+) (%d+)$')
    if not rate or now - tonumber(at) > 3000 then
        redis.call('HDEL', KEYS[1], fields[index])
    elseif fields[index] ~= ARGV[1] then
        others = others + tonumber(rate)
    end
end
return others
