#!lua flags=allow-oom
-- The end of a sweep: nothing of the incarnation is left but the word that it is dead, and that for a day.
--
-- KEYS  1 P:{i:I}  2 P:{i:I}:rooms  3 P:{i:I}:sessions
-- ARGV  1 forget at once (0 or 1: a clean end needs no word)
-- RETURNS 1 done; 0 an index still holds something, sweep on
-- ATOMICITY  the word that it is swept is written only over empty indexes, which a dead incarnation cannot fill again.
if redis.call('EXISTS', KEYS[2], KEYS[3]) > 0 then return 0 end
if ARGV[1] == '1' then
    redis.call('DEL', KEYS[1])
elseif redis.call('HGET', KEYS[1], 'state') == 'dead' then
    local time = redis.call('TIME')
    redis.call('HSET', KEYS[1], 'swept', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)))
    redis.call('HDEL', KEYS[1], 'sweeper', 'claim')
    redis.call('EXPIRE', KEYS[1], 86400)
end
return 1
