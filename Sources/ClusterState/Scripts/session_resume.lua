#!lua
-- A session gets a new owner, because a client showed its secret; it may be detached, or attached anywhere.
--
-- KEYS  1 P:{s:S}
-- ARGV  1 I, the new owner  2 SHA-256 of the secret that was shown, hex  3 SHA-256 of the next secret  4 user (nothing: any)
-- RETURNS {'ok', generation, the owner before, user, client, info, status, then two a room: ROOM, 1 (with echo) or 0}
--         {'refused', 'unknown' | 'secret' | 'user'}  it is not there, was never to be resumed, or its grace is over; the
--         secret is neither the current nor the one before; it is another user's. Nothing changed
-- ATOMICITY  of two resumes with one secret the later owns the session, one generation above the earlier: while the new
--            secret is not confirmed the one shown stays good. No allow-oom: the joins behind it are not allowed either.
local fields = redis.call('HGETALL', KEYS[1])
local session = {}
for index = 1, #fields, 2 do session[fields[index]] = fields[index + 1] end
if not session.generation or (session.secret or '') == '' then return { 'refused', 'unknown' } end
if session['until'] then
    local time = redis.call('TIME')
    if tonumber(session['until']) < time[1] * 1000 + math.floor(time[2] / 1000) then return { 'refused', 'unknown' } end
end
if session.secret ~= ARGV[2] and session.previous ~= ARGV[2] then return { 'refused', 'secret' } end
if ARGV[4] ~= '' and session.user ~= ARGV[4] then return { 'refused', 'user' } end

local generation = string.format('%.0f', tonumber(session.generation) + 1)
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'generation', generation, 'previous', ARGV[2], 'secret', ARGV[3])
redis.call('HDEL', KEYS[1], 'until')
redis.call('PERSIST', KEYS[1])
local reply = {
    'ok', generation, session.owner, session.user, session.client or '', session.info or '', session.status or 'online',
}
for field, value in pairs(session) do
    local room = string.match(field, '^r:(.+)$')
    if room then
        reply[#reply + 1] = room
        reply[#reply + 1] = value
    end
end
return reply
