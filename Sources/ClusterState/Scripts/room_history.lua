#!lua flags=no-writes
-- A page of a room's log, with the room's head.
--
-- KEYS  1 meta  2 log
-- ARGV  1 'forward' | 'backward'  2 start id  3 end id (as XRANGE and XREVRANGE take them)  4 how many (at most 500)
--       5 how many bytes of fields, about; at least two entries are in a page whatever they weigh, so that a reader who
--         begins with the last message it knows gets further
-- RETURNS {} there is no such room; else {epoch, seq, tag, pv, count, more (1: entries of the range are left behind this
--         page, 0), entries, oldest first, as XRANGE gives them}
-- ATOMICITY  head and entries are of one moment.

local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'tag', 'pv', 'count')
if not meta[1] then return {} end
local most, room_left = math.min(tonumber(ARGV[4]), 500), tonumber(ARGV[5])
local command = ARGV[1] == 'backward' and 'XREVRANGE' or 'XRANGE'

-- Read in pieces, each about as large as what still fits: a page of large entries must not load the whole range.
local entries, more, start, piece = {}, 0, ARGV[2], 8
local read
repeat
    piece = math.min(piece, most + 1 - #entries)
    read = redis.call(command, KEYS[2], start, ARGV[3], 'COUNT', piece)
    local bytes = 0
    for _, entry in ipairs(read) do
        for _, field in ipairs(entry[2]) do bytes = bytes + #field end
    end
    local average = bytes / math.max(1, #read)
    for _, entry in ipairs(read) do
        for _, field in ipairs(entry[2]) do room_left = room_left - #field end
        if #entries == most or (room_left < 0 and #entries >= 2) then
            more = 1
            break
        end
        entries[#entries + 1] = entry
        start = '(' .. entry[1]
    end
    local whole = #read == piece
    piece = math.max(2, math.ceil(room_left / math.max(1, average)))
until more == 1 or not whole

if command == 'XREVRANGE' then
    local newest_first = entries
    entries = {}
    for index = #newest_first, 1, -1 do entries[#entries + 1] = newest_first[index] end
end
return { meta[1], meta[2] or '0', meta[3] or '-', meta[4] or '0', meta[5] or '0', more, entries }
