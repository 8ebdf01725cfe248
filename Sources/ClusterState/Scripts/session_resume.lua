#!lua
-- A session gets a new owner, because a client showed its secret; it may be detached, or attached anywhere.
--
-- KEYS  1 P:{s:S}
-- ARGV  1 I, the new owner  2 SHA-256 of the secret that was shown, hex  3 SHA-256 of the next secret  4 user (nothing: any)
--       5 the channel of the user  6 S
-- RETURNS {'ok', generation, the owner before, user, client, info, status, then two a room: ROOM, 1 (with echo) or 0}
--         {'refused', 'unknown' | 'secret' | 'user'}  it is not there, was never to be resumed, or its grace is over; the
--         secret is neither the current nor the one before; it is another user's. Nothing changed
-- ATOMICITY  of two resumes with one secret the later owns the session, one generation above the earlier: while the new
--            secret is not confirmed the one shown stays good. The node that had it is told in the same step. No allow-oom:
--            the joins behind it are not allowed either.
-- include: session
local session = read_session()
if not session.generation or (session.secret or '') == '' then return { 'refused', 'unknown' } end
if session['until'] and tonumber(session['until']) < now_ms() then return { 'refused', 'unknown' } end
if session.secret ~= ARGV[2] and session.previous ~= ARGV[2] then return { 'refused', 'secret' } end
if ARGV[4] ~= '' and session.user ~= ARGV[4] then return { 'refused', 'user' } end

local generation = integer(tonumber(session.generation) + 1)
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'generation', generation, 'previous', ARGV[2], 'secret', ARGV[3])
redis.call('HDEL', KEYS[1], 'until')
redis.call('PERSIST', KEYS[1])
redis.call('PUBLISH', ARGV[5], 'O' .. ARGV[6] .. ' ' .. generation .. '\n')
return with_session({ 'ok', generation, session.owner }, session)
