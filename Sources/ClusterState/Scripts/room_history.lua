#!lua flags=no-writes
-- A page of a room's log, with the room's head.
--
-- KEYS  1 meta  2 log
-- ARGV  1 'forward' (oldest first) | 'backward' (newest first)  2 first seq  3 last seq
--       4 how many messages (at most 500)  5 how many bytes, about
--       6 no message older than this (ms; '': as the room has it), nor than the age that its last publish had
-- RETURNS {} there is no such room; else {epoch, seq, tag, pv, count, more (1: entries of the range are left behind this
--         page, 0), entries, oldest first, as XRANGE gives them, the seq of one that was met and is too old (0: none was)}.
--         The entries have at least what was asked for, or two messages whatever they weigh; those at the ends may hold
--         more than the range. A log that is gone, for all of it was too old, is an empty one.
-- ATOMICITY  head and entries are of one moment.

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'tag', 'pv', 'count', 'age')
if not meta[1] then return {} end
local from, to, most, room_left = ARGV[2] + 0, ARGV[3] + 0, math.min(ARGV[4] + 0, 500), ARGV[5] + 0
local age = math.min(tonumber(ARGV[6]) or math.huge, tonumber(meta[6]) or math.huge)
local time = redis.call('TIME')
local oldest = time[1] * 1000 + math.floor(time[2] / 1000) - age

local function seq_of(entry) return string.match(entry[1], '^%d+') + 0 end
local function is_too_old(entry) return (tonumber(string.match(entry[2][2], '^%d+')) or oldest) < oldest end
local function id_of(seq) return string.format('%d', seq) .. '-0' end
local function first_from(id) return redis.call('XRANGE', KEYS[2], id, '+', 'COUNT', 1)[1] end

local entries, messages, more, too_old = {}, 0, 0, 0
--- An entry's id is the seq of its last message; its head ends with their number. False when nothing more is wanted.
local function take(entry)
    local last = seq_of(entry)
    local ts, count = string.match(entry[2][2], '^(%d+) (%d+)$')
    local first = last - (count or 1) + 1
    if first > to or last < from then return false end
    -- Backward: so is all before it.
    if ts and ts + 0 < oldest then
        too_old = last
        return false
    end
    if messages >= most or (room_left <= 0 and messages >= 2) then
        more = 1
        return false
    end
    entries[#entries + 1] = entry
    messages = messages + math.min(last, to) - math.max(first, from) + 1
    for _, field in ipairs(entry[2]) do room_left = room_left - #field end
    return true
end

-- Read in pieces, each about as large as what still fits: a page of large entries must not load the whole range.
local function take_all(command, start, stop)
    local piece, read = 4, nil
    repeat
        local before = room_left
        read = redis.call(command, KEYS[2], start, stop, 'COUNT', piece)
        for _, entry in ipairs(read) do
            if not take(entry) then return end
            start = '(' .. entry[1]
        end
        local average = (before - room_left) / math.max(1, #read)
        local whole = #read == piece
        piece = math.min(math.max(2, math.ceil(room_left / math.max(1, average))), math.max(1, most + 1 - messages))
    until not whole
end

if ARGV[1] == 'forward' then
    local start = ARGV[2] .. '-0'
    local entry = first_from(start)
    if entry and is_too_old(entry) then
        -- Times rise with the numbers: the last that is too old is found by halves.
        too_old = seq_of(entry)
        local beyond = meta[2] + 1
        while too_old + 1 < beyond do
            local middle = math.floor((too_old + 1 + beyond) / 2)
            entry = first_from(id_of(middle))
            if entry and is_too_old(entry) then too_old = seq_of(entry) else beyond = middle end
        end
        start = id_of(too_old + 1)
    end
    take_all('XRANGE', start, '+')
elseif to >= 1 then
    -- The entry with the last of the range may go on behind it.
    for _, entry in ipairs(redis.call('XRANGE', KEYS[2], ARGV[3] .. '-0', '+', 'COUNT', 1)) do take(entry) end
    take_all('XREVRANGE', '(' .. ARGV[3] .. '-0', '-')
    local newest_first = entries
    entries = {}
    for index = #newest_first, 1, -1 do entries[#entries + 1] = newest_first[index] end
end
return { meta[1], meta[2] or '0', meta[3] or '-', meta[4] or '0', meta[5] or '0', more, entries, too_old }
