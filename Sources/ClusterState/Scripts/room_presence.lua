#!lua flags=no-writes
-- A page of the users in a room.
--
-- KEYS  1 meta  2 sessions  3 users
-- ARGV  1 (not used)  2 cursor (0 first)  3 how many, about (at most 500)
-- RETURNS {} there is no such room; else {next cursor (0: that was all), epoch, seq, tag, pv, count, member JSON ...}
-- ATOMICITY  head and page are of one moment. Pages are not: a user who comes or goes between them may be missing or
--            listed twice (as with HSCAN).

-- include: presence

local head = read_head()
if not head then return {} end
local page = redis.call('HSCAN', KEYS[3], ARGV[2], 'COUNT', math.min(tonumber(ARGV[3]), 500))
local reply = { page[1], head.epoch, integer(head.seq), head.tag, integer(head.pv), integer(head.count) }
for index = 1, #page[2], 2 do
    local counts = decode_user(page[2][index + 1])
    local rank = rank_of(counts)
    if rank and rank < 4 then reply[#reply + 1] = member_json(page[2][index], rank, counts.info) end
end
return reply
