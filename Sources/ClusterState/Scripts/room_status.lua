#!lua
-- A session in a room changes its status.
--
-- KEYS  1 meta  2 sessions  3 users  4 dead  5 log  6 read
-- ARGV  1 room channel  2 session  3 I  4 generation  5 status
-- RETURNS 1 it has this status now; 0 it is not here, or belongs to another incarnation or generation
-- ATOMICITY  sessions, users, meta and the presence message change together. The same status again publishes nothing.

-- include: presence

local session = decode_session(redis.call('HGET', KEYS[2], ARGV[2]))
if not session or session.i ~= ARGV[3] or session.generation ~= tonumber(ARGV[4]) then return 0 end
if session.status == ARGV[5] then return 1 end

load_users({ session.user })
count_session(session.user, session.status, -1)
count_session(session.user, ARGV[5], 1)
redis.call('HSET', KEYS[2], ARGV[2],
    table.concat({ session.i, ARGV[4], session.joined, ARGV[5], session.user, session.info }, '\n'))
local head = read_head()
if head then settle(head, 1) end
return 1
