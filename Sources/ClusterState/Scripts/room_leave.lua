#!lua flags=allow-oom
-- A session leaves a room, if it is still its caller's: compare (I, generation), then delete.
--
-- KEYS  1 meta  2 sessions  3 users  4 dead  5 log  6 read  7 on:I
-- ARGV  1 room channel  2 session  3 I  4 generation (-1: any of I's, for an entry that I knows nothing of)
-- RETURNS 1 it left; 0 it was not here, or belongs to another incarnation or generation
-- ATOMICITY  sessions, users, on:I, meta and the presence message change together. Of any number of calls one removes.

-- include: presence

local session = decode_session(redis.call('HGET', KEYS[2], ARGV[2]))
if not session or session.i ~= ARGV[3] then
    redis.call('SREM', KEYS[7], ARGV[2])
    return 0
end
if ARGV[4] ~= '-1' and session.generation ~= tonumber(ARGV[4]) then return 0 end

load_users({ session.user })
count_session(session.user, session.status, -1)
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('SREM', KEYS[7], ARGV[2])
local head = read_head()
if head then settle(head, 1) end
return 1
