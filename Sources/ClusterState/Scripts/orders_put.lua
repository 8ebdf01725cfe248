#!lua flags=allow-oom
-- Moderation orders come into force. Allowed when Redis is full: who fills it must be stopped, and both keys are bounded.
--
-- KEYS  1 P:{orders}  2 P:{orders}:audit
-- ARGV  1 control channel  2 how long (ms; nothing: until lifted)  3 by  4 reason  5 orders at most  6 audit lines at most
--       7 what the audit says was ordered: KIND SORT ROOM NAME  then the orders, 100 at most: KIND SORT ROOM NAME
-- RETURNS {now (ms), the end (ms; 0: until lifted)}
--         {}  there are too many orders; nothing changed
-- ATOMICITY  written, counted as a version, noted in the audit and told in one step. A node whose version is not the one
--            before the one that it is told missed something, and reads them all.
local orders, audit = KEYS[1], KEYS[2]
local new = 0
for index = 8, #ARGV do
    new = new + 1 - redis.call('HEXISTS', orders, ARGV[index])
end
-- One field is the version.
if new > 0 and redis.call('HLEN', orders) - 1 + new > tonumber(ARGV[5]) then return {} end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local since, ends = string.format('%.0f', now), '0'
if ARGV[2] ~= '' then ends = string.format('%.0f', now + tonumber(ARGV[2])) end
local value = since .. ' ' .. ends .. '\n' .. ARGV[3] .. '\n' .. ARGV[4]
local version = redis.call('HGET', orders, 'version') or '0-0'
for index = 8, #ARGV do
    local following = string.format('%s-%.0f', since, tonumber(string.match(version, '%d+$')) + 1)
    redis.call('HSET', orders, ARGV[index], value, 'version', following)
    redis.call('PUBLISH', ARGV[1], 'order ' .. version .. ' ' .. following .. '\n' .. ARGV[index] .. '\n' .. value)
    version = following
end
redis.call('XADD', audit, 'MAXLEN', '~', ARGV[6], '*', 'order', ARGV[7], 'by', ARGV[3], 'reason', ARGV[4], 'until', ends)
return { since, ends }
