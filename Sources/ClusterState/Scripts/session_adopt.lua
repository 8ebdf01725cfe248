#!lua flags=allow-oom
-- A sweeper takes a session of a dead incarnation: detached, until the grace after the dead one's lease is over.
--
-- KEYS  1 P:{s:S}
-- ARGV  1 the dead I  2 the sweeper J  3 the end of I's last lease (ms)  4 grace (ms)
-- RETURNS {generation, what is left of the grace (ms, 0: it is over), user, client, info, status, then two a room: ROOM, 1
--         (with echo) or 0}
--         {owner or nothing}  it is not I's any more, or was never to be resumed; nothing changed
-- ATOMICITY  the owner is compared and the session moved in one step: of several sweepers, or a sweeper and a resume, one
--            gets it; the same sweeper again gets the same. A session that was detached already keeps its own end if that is later.
local fields = redis.call('HGETALL', KEYS[1])
local session = {}
for index = 1, #fields, 2 do session[fields[index]] = fields[index + 1] end
local is_again = session.owner == ARGV[2] and session['until'] ~= nil
if (session.owner ~= ARGV[1] and not is_again) or (session.secret or '') == '' then return { session.owner or '' } end

local function integer(number) return string.format('%.0f', number) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = math.max(tonumber(session['until'] or 0), tonumber(ARGV[3]) + tonumber(ARGV[4]))
local left = math.max(0, ends - now)
local generation = integer(tonumber(session.generation) + (is_again and 0 or 1))
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'generation', generation, 'until', integer(ends))
redis.call('PEXPIRE', KEYS[1], integer(left + 60000))
local reply = {
    generation, integer(left), session.user, session.client or '', session.info or '', session.status or 'online',
}
for field, value in pairs(session) do
    local room = string.match(field, '^r:(.+)$')
    if room then
        reply[#reply + 1] = room
        reply[#reply + 1] = value
    end
end
return reply
