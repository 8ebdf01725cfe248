#!lua flags=allow-oom
-- A moderation order is lifted before its end.
--
-- KEYS  1 P:{orders}  2 P:{orders}:audit
-- ARGV  1 control channel  2 by  3 reason  4 audit lines at most  5 the order: KIND SORT ROOM NAME
-- RETURNS 1 it is lifted; 0 it was not in force
-- ATOMICITY  removed, counted as a version, noted in the audit and told in one step.
local value = redis.call('HGET', KEYS[1], ARGV[5])
if not value then return 0 end
redis.call('HDEL', KEYS[1], ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = tonumber(string.match(value, '^%d+ (%d+)')) or 0
if ends ~= 0 and ends <= now then return 0 end

local version = redis.call('HGET', KEYS[1], 'version') or '0-0'
local following = string.format('%.0f-%.0f', now, tonumber(string.match(version, '%d+$')) + 1)
redis.call('HSET', KEYS[1], 'version', following)
redis.call('PUBLISH', ARGV[1], 'order ' .. version .. ' ' .. following .. '\n' .. ARGV[5] .. '\n')
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'order', ARGV[5], 'by', ARGV[2], 'reason', ARGV[3], 'lifted', '1')
return 1
