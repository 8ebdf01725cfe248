-- FRAGMENT, not a script: it stands where a script says "-- include: presence". Who is visible in a room follows from
-- its sessions alone; this is the one place that counts them and tells the change.
--
-- KEYS  of every script that includes it: 1 meta, 2 sessions, 3 users, 4 dead, 5 log, 6 read
-- ARGV  of every script that includes it: 1 the room's channel
-- RETURNS nothing; it defines what the script then calls
-- ATOMICITY  that of the script
--
-- P:{r:ROOM}:sessions  SESSION -> six lines: I, generation, joined at (ms), status, user, info (a JSON object or nothing)
-- P:{r:ROOM}:users     USER -> two lines: "ONLINE AWAY BUSY INVISIBLE" (sessions of each status), info of the latest joiner
local STATUS = { 'online', 'away', 'busy', 'invisible' }
local RANK = { online = 1, away = 2, busy = 3, invisible = 4 }
-- A room without a message is forgotten so long after its last member left.
local SILENT_ROOM_MS = 60000

local function integer(number) return string.format('%.0f', number) end

local function redis_time()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function decode_session(value)
    if not value then return nil end
    local i, generation, joined, status, user, info =
        string.match(value, '^([^\n]*)\n(%d+)\n(%d+)\n(%l+)\n([^\n]*)\n(.*)$')
    if not i or not RANK[status] then return nil end
    return { i = i, generation = tonumber(generation), joined = joined, status = status, user = user, info = info }
end

local function decode_user(value)
    local online, away, busy, invisible, info = string.match(value or '', '^(%d+) (%d+) (%d+) (%d+)\n(.*)$')
    if not online then return { 0, 0, 0, 0, info = '' } end
    return { tonumber(online), tonumber(away), tonumber(busy), tonumber(invisible), info = info }
end

-- The rank of the most present session; nil without any.
local function rank_of(counts)
    for rank = 1, 4 do
        if counts[rank] > 0 then return rank end
    end
    return nil
end

local function quote(user) return '"' .. string.gsub(user, '[\\"]', '\\%0') .. '"' end

local function member_json(user, rank, info)
    local json = '{"user":' .. quote(user)
    if rank > 1 then json = json .. ',"status":"' .. STATUS[rank] .. '"' end
    if info ~= '' then json = json .. ',"info":' .. info end
    return json .. '}'
end

-- The users that a change touches, in the order in which they are named.
local people, touched = {}, {}

local function load_users(names)
    local missing = {}
    for _, name in ipairs(names) do
        if not people[name] then
            people[name] = { 0, 0, 0, 0, info = '' }
            missing[#missing + 1] = name
        end
    end
    if #missing == 0 then return end
    local values = redis.call('HMGET', KEYS[3], unpack(missing))
    for index, name in ipairs(missing) do
        local counts = decode_user(values[index])
        counts.before = rank_of(counts)
        people[name] = counts
        touched[#touched + 1] = name
    end
end

local function count_session(user, status, by)
    local counts, rank = people[user], RANK[status]
    counts[rank] = math.max(0, counts[rank] + by)
end

-- Writes what became of the touched users, meta.pv, count and members, and publishes one 'P' message if anyone became
-- visible, hid or changed. Lets the room end, or live on. head = {epoch, pv, count, seq}; returns pv and count.
local function settle(head, members_before)
    local lines, set, gone = {}, {}, {}
    local pv, count = head.pv, head.count
    for _, name in ipairs(touched) do
        local counts = people[name]
        local rank, before = rank_of(counts), counts.before
        if rank then
            set[#set + 1] = name
            set[#set + 1] = counts[1] .. ' ' .. counts[2] .. ' ' .. counts[3] .. ' ' .. counts[4] .. '\n' .. counts.info
        else
            gone[#gone + 1] = name
        end
        local is, was = rank and rank < 4, before and before < 4
        if is and not was then
            count = count + 1
            lines[#lines + 1] = '+' .. member_json(name, rank, counts.info)
        elseif was and not is then
            count = count - 1
            lines[#lines + 1] = '-{"user":' .. quote(name) .. '}'
        elseif is and was and rank ~= before then
            lines[#lines + 1] = '~{"user":' .. quote(name) .. ',"status":"' .. STATUS[rank] .. '"}'
        end
    end
    if #set > 0 then redis.call('HSET', KEYS[3], unpack(set)) end
    if #gone > 0 then redis.call('HDEL', KEYS[3], unpack(gone)) end
    local members = redis.call('HLEN', KEYS[2])
    if members == 0 then count = 0 end
    pv = pv + #lines
    redis.call('HSET', KEYS[1], 'pv', integer(pv), 'count', count, 'members', members)
    if members == 0 then
        if head.seq == 0 then
            redis.call('PEXPIRE', KEYS[1], SILENT_ROOM_MS)
        else
            -- A log ends with its newest message; one that an older version wrote knows no end.
            redis.call('PEXPIRE', KEYS[5], integer(head.age), 'NX')
            redis.call('PEXPIRE', KEYS[6], integer(head.age))
            redis.call('PEXPIRE', KEYS[1], integer(head.age + head.keep))
        end
    elseif members_before == 0 then
        redis.call('PERSIST', KEYS[1])
        redis.call('PERSIST', KEYS[6])
    end
    if #lines > 0 then
        redis.call('PUBLISH', ARGV[1],
            'P' .. integer(pv) .. ' ' .. count .. ' ' .. head.epoch .. '\n' .. table.concat(lines, '\n'))
    end
    return pv, count
end

local function read_head()
    local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'tag', 'pv', 'count', 'age', 'keep')
    if not meta[1] then return nil end
    return {
        epoch = meta[1], seq = tonumber(meta[2]) or 0, tag = meta[3] or '-', pv = tonumber(meta[4]) or 0,
        count = tonumber(meta[5]) or 0, age = tonumber(meta[6]) or 0, keep = tonumber(meta[7]) or 0,
    }
end
