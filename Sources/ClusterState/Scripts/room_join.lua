#!lua
-- A session enters a room, enters it again, or moves to another incarnation or generation.
--
-- KEYS  1 meta  2 sessions  3 users  4 dead  5 log  6 read  7 on:I
--       [8 on:I of the incarnation it moves away from]
-- ARGV  1 room channel  2 epoch should the room be new  3 session  4 user  5 I  6 generation  7 joined at (ms, 0: now)
--       8 status  9 info (JSON object or nothing)
-- RETURNS {'ok', epoch, seq, tag, pv, count}
--         {'refused', 'dead' | 'older'}   I has a tombstone here, or a newer owner holds the session; nothing changed
--         {'declare', I'}                 the session stands on I': call again with KEYS[8] = on:I'; nothing changed
-- ATOMICITY  sessions, users, on:I, meta.pv/count/members and the presence message change together or not at all.
--            The same call again changes nothing and publishes nothing. No allow-oom: a full Redis takes no new member.

-- include: presence

local session, user, incarnation = ARGV[3], ARGV[4], ARGV[5]
local generation, status, info = tonumber(ARGV[6]), ARGV[8], ARGV[9]

if redis.call('HEXISTS', KEYS[4], incarnation) == 1 then return { 'refused', 'dead' } end

local stored = redis.call('HGET', KEYS[2], session)
local old = decode_session(stored)
local joined = ARGV[7]
if old then
    local name, number = string.match(incarnation, '^(.*)%.(%d+)$')
    local old_name, old_number = string.match(old.i, '^(.*)%.(%d+)$')
    if generation < old.generation
        or (generation == old.generation and name == old_name and tonumber(number) < tonumber(old_number)) then
        return { 'refused', 'older' }
    end
    if old.i ~= incarnation then
        -- Where it stood is known only now, and a script touches no key that it did not declare.
        if not KEYS[8] or string.sub(KEYS[8], -#old.i - 4) ~= ':on:' .. old.i then return { 'declare', old.i } end
        redis.call('SREM', KEYS[8], session)
    end
    joined = old.joined
elseif joined == '0' then
    joined = integer(redis_time())
end

local head = read_head()
if not head then
    head = { epoch = ARGV[2], seq = 0, tag = '-', pv = 0, count = 0, age = 0, keep = 0 }
    redis.call('HSET', KEYS[1], 'epoch', head.epoch, 'seq', 0, 'tag', '-', 'ts', 0)
end

local pv, count = head.pv, head.count
local value = table.concat({ incarnation, ARGV[6], joined, status, user, info }, '\n')
if value ~= stored then
    local members_before = old and 1 or redis.call('EXISTS', KEYS[2])
    load_users(old and { old.user, user } or { user })
    if old then count_session(old.user, old.status, -1) end
    count_session(user, status, 1)
    if info ~= '' then people[user].info = info end
    redis.call('HSET', KEYS[2], session, value)
    redis.call('SADD', KEYS[7], session)
    pv, count = settle(head, members_before)
end

return { 'ok', head.epoch, integer(head.seq), head.tag, integer(pv), integer(count) }
