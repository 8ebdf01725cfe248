#!lua flags=allow-oom
-- One chunk of a dead incarnation's sessions leaves a room, behind a tombstone that lets no late join of it in.
--
-- KEYS  1 meta  2 sessions  3 users  4 dead  5 log  6 read  7 on:I
-- ARGV  1 room channel  2 I  3 chunk (at most 500; 100 take 1 to 2 ms)
-- RETURNS {removed, left}: call again while left > 0
-- ATOMICITY  a chunk leaves together with its one presence message. Each session leaves once, however many sweepers
--            call and wherever one of them stops; a session that moved to another incarnation stays.

-- include: presence

local TOMBSTONE_SECONDS = 86400

local now = redis_time()
local stones = redis.call('HGETALL', KEYS[4])
for index = 1, #stones, 2 do
    if (tonumber(stones[index + 1]) or 0) < now - TOMBSTONE_SECONDS * 1000 then
        redis.call('HDEL', KEYS[4], stones[index])
    end
end
redis.call('HSET', KEYS[4], ARGV[2], integer(now))
redis.call('EXPIRE', KEYS[4], TOMBSTONE_SECONDS)

local ids = redis.call('SPOP', KEYS[7], math.min(tonumber(ARGV[3]), 500))
if #ids == 0 then return { 0, 0 } end

local values = redis.call('HMGET', KEYS[2], unpack(ids))
local leaving, names, sessions = {}, {}, {}
for index, id in ipairs(ids) do
    local session = decode_session(values[index])
    if session and session.i == ARGV[2] then
        leaving[#leaving + 1] = id
        names[#names + 1] = session.user
        sessions[#sessions + 1] = session
    end
end
if #leaving > 0 then
    load_users(names)
    for _, session in ipairs(sessions) do count_session(session.user, session.status, -1) end
    redis.call('HDEL', KEYS[2], unpack(leaving))
    local head = read_head()
    if head then settle(head, 1) end
end
return { #leaving, redis.call('SCARD', KEYS[7]) }
