#!lua flags=allow-oom
-- A sweeper takes a session of a dead incarnation: detached, until the grace after the dead one's lease is over. Or an
-- incarnation takes one of its own that it knows nothing of: until the grace is over, or when it ends already.
--
-- KEYS  1 P:{s:S}
-- ARGV  1 the dead I  2 the sweeper J, or I itself  3 the end of I's last lease (ms; nothing: I lives)  4 grace (ms)
--       5 the generation that it must have (nothing: any)
-- RETURNS {generation, what is left of the grace (ms, 0: it is over), user, client, info, status, then two a room: ROOM, 1
--         (with echo) or 0}
--         {owner or nothing}  it is not I's any more, or of another generation, or was never to be resumed; nothing changed
-- ATOMICITY  the owner is compared and the session moved in one step: of several sweepers, or a sweeper and a resume, one
--            gets it; the same sweeper again gets the same. A session that was detached already keeps its own end if that is later.
-- include: session
local session = read_session()
local is_again = session.owner == ARGV[2] and session['until'] ~= nil
if (session.owner ~= ARGV[1] and not is_again) or (session.secret or '') == '' then return { session.owner or '' } end
if ARGV[5] ~= '' and session.generation ~= ARGV[5] then return { session.owner } end

local now = now_ms()
local ends = tonumber(session['until'] or 0)
local from = tonumber(ARGV[3]) or (ends == 0 and now)
if from then ends = math.max(ends, from + tonumber(ARGV[4])) end
local left = math.max(0, ends - now)
local generation = integer(tonumber(session.generation) + (is_again and 0 or 1))
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'generation', generation, 'until', integer(ends))
redis.call('PEXPIRE', KEYS[1], integer(left + 60000))
return with_session({ generation, integer(left) }, session)
