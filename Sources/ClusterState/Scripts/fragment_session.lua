-- FRAGMENT, not a script: it stands where a script says "-- include: session". A session changes hands as a whole; this
-- reads it, and tells the new owner what it is.
--
-- KEYS  of every script that includes it: 1 P:{s:S}
-- ARGV  none
-- RETURNS nothing; it defines what the script then calls
-- ATOMICITY  that of the script
local function read_session()
    local fields, session = redis.call('HGETALL', KEYS[1]), {}
    for index = 1, #fields, 2 do session[fields[index]] = fields[index + 1] end
    return session
end

local function integer(number) return string.format('%.0f', number) end

local function now_ms()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Behind `reply`: user, client, info, status, then two a room: ROOM, 1 (with echo) or 0.
local function with_session(reply, session)
    reply[#reply + 1] = session.user
    reply[#reply + 1] = session.client or ''
    reply[#reply + 1] = session.info or ''
    reply[#reply + 1] = session.status or 'online'
    for field, value in pairs(session) do
        local room = string.match(field, '^r:(.+)$')
        if room then
            reply[#reply + 1] = room
            reply[#reply + 1] = value
        end
    end
    return reply
end
