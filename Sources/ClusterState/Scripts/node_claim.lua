#!lua flags=allow-oom
-- Declares an incarnation dead whose lease is past (or, with force, at once) and claims or keeps its sweep.
--
-- KEYS  1 P:{i:I}
-- ARGV  1 control channel  2 I  3 sweeper (nobody: kill only)  4 claim (ms)  5 force (0 or 1)
--       6 how long a swept incarnation stays in the hint (ms)  7 nobody is declared dead after this (ms)
-- RETURNS 'live'     its lease holds, or the caller has no say any more
--         'claimed'  it is dead and the sweep is the caller's for so long as the claim
--         'taken'    it is dead and another sweeps
--         'swept'    it is dead and nothing of it is left
--         'forget'   it is unknown, or was swept long ago: the hint may go
-- ATOMICITY  live turns dead once, and is announced once. One sweeper at a time; a claim that ran out is anyone's.
local node = redis.call('HMGET', KEYS[1], 'state', 'lease', 'swept', 'sweeper', 'claim')
if not node[1] then return 'forget' end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if node[1] == 'live' then
    -- A call that waited while Redis stood still comes before the heartbeats that waited with it.
    if ARGV[5] ~= '1' and ((tonumber(node[2]) or 0) >= now or now > tonumber(ARGV[7])) then return 'live' end
    redis.call('HSET', KEYS[1], 'state', 'dead', 'died', string.format('%.0f', now))
    redis.call('PUBLISH', ARGV[1], 'down ' .. ARGV[2])
end
if node[3] then
    if tonumber(node[3]) + tonumber(ARGV[6]) < now then return 'forget' end
    return 'swept'
end
if ARGV[3] == '' then return 'taken' end
if node[4] and node[4] ~= ARGV[3] and (tonumber(node[5]) or 0) >= now then return 'taken' end
redis.call('HSET', KEYS[1], 'sweeper', ARGV[3], 'claim', string.format('%.0f', now + tonumber(ARGV[4])))
return 'claimed'
