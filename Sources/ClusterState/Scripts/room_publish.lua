#!lua
-- A batch of messages of one room: dedupe, number, store, relay. The hot path of the cluster's Redis: as few calls and
-- arguments as there can be.
--
-- KEYS  1 meta  2 log  3 sent  4 sent.prev
-- ARGV  1 the frame up to its seq: {"type":"message","room":"ROOM","seq":   2 epoch should the room be new
--       3 history messages (0: no log)  4 "AGE KEEP": history age (ms), how long meta outlives the log (ms)
--       5 user channels (0: one room channel)   6... the channel or channels
--       then six a message: dedupe key, fingerprint, tag, "ORIGIN IDLEN\nID", user, body (JSON members)
-- RETURNS {epoch, ts, then one a message: seq (stored) | "SEQ TS TAG" (a duplicate of it) | 0 (the id had another payload)}
-- ATOMICITY  the batch is numbered, stored and relayed in its order, without another message in between. A duplicate is
--            neither stored nor relayed again. No allow-oom: a full Redis refuses the batch before it does anything.

-- What `sent` remembers is swapped away after two minutes or some 100,000 messages, and gone after two swaps; so an id is
-- known for at least two minutes, or at least for the last 100,000 messages of its room.
local SENT_MS, SENT_CAP = 120000, 100000

local call, format, floor = redis.call, string.format, math.floor
local to_users, has_log = ARGV[5] ~= '0', ARGV[3] ~= '0'
local first = to_users and ARGV[5] + 6 or 7
local n = (#ARGV - first + 1) / 6

local time = call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)
local meta = call('HMGET', KEYS[1], 'epoch', 'seq', 'tag', 'ts', 'swap', 'members')
-- Arithmetic on a string costs Lua half of what tonumber() does.
local epoch, seq, tag, last, swap = meta[1], (meta[2] or 0) + 0, meta[3] or '-', (meta[4] or 0) + 0, meta[5]
if not epoch then epoch, seq, tag, last, swap = ARGV[2], 0, '-', 0, false end
-- A log or ids from before the room's first message belong to an earlier life of it.
if seq == 0 then call('UNLINK', KEYS[2], KEYS[3], KEYS[4]) end

-- '%d' of a Lua number is exact up to 2^53, as '%.0f' is, and takes a third of the time.
local ts_text = format('%d', now > last and now or last)
local reply = { epoch, ts_text }

local known, previous
if n == 1 then
    known = { call('HGET', KEYS[3], ARGV[first]) }
    previous = { known[1] or call('HGET', KEYS[4], ARGV[first]) }
else
    local ids = {}
    for index = 1, n do ids[index] = ARGV[first + (index - 1) * 6] end
    known = call('HMGET', KEYS[3], unpack(ids))
    previous = call('HMGET', KEYS[4], unpack(ids))
end

local kind, middle, closing = 'M', ' ' .. epoch .. ' ' .. ts_text .. ' ', ',"ts":' .. ts_text .. '}'
if to_users then
    -- No `joined` tells the epoch of a private room.
    closing = ',"ts":' .. ts_text .. ',"epoch":"' .. epoch .. '"}'
    kind, middle = 'D', ' ' .. epoch .. ' ' .. string.match(ARGV[1], '"room":"([^"]*)"') .. ' ' .. ts_text .. ' '
end
local opening, before_batch, fresh, sent = ARGV[1], seq, {}, {}

for index = 1, n do
    local at = first + (index - 1) * 6
    local id = ARGV[at]
    local before = known[index] or previous[index] or fresh[id]
    if before then
        local stored, fingerprint = string.match(before, '^(%d+ %d+ %S+) (.*)$')
        reply[index + 2] = fingerprint == ARGV[at + 1] and stored or 0
    else
        seq = seq + 1
        local seq_text, new_tag, head, body = format('%d', seq), ARGV[at + 2], ARGV[at + 3], ARGV[at + 5]
        if has_log then
            call('XADD', KEYS[2], seq_text .. '-0', 'h',
                ts_text .. ' ' .. new_tag .. ' ' .. ARGV[at + 4] .. '\n' .. head, 'b', body)
        end
        local message = kind .. seq_text .. ' ' .. new_tag .. ' ' .. tag .. middle .. head
            .. opening .. seq_text .. ',"tag":"' .. new_tag .. '",' .. body .. closing
        for channel = 6, first - 1 do call('PUBLISH', ARGV[channel], message) end
        tag = new_tag
        local value = seq_text .. ' ' .. ts_text .. ' ' .. new_tag .. ' ' .. ARGV[at + 1]
        fresh[id] = value
        sent[#sent + 1] = id
        sent[#sent + 1] = value
        reply[index + 2] = seq
    end
end
if seq == before_batch then return reply end

local function limits() return string.match(ARGV[4], '^(%d+) (%d+)$') end

-- The clock may go back; then, too, a new generation starts, so that none is without its end.
local swaps = not swap or now - swap >= SENT_MS or now - swap < 0
if not swaps and floor(seq / 1024) ~= floor(before_batch / 1024) then swaps = call('HLEN', KEYS[3]) >= SENT_CAP end
if swaps then
    call('UNLINK', KEYS[4])
    if call('EXISTS', KEYS[3]) == 1 then call('RENAME', KEYS[3], KEYS[4]) end
    -- A field this long makes it a hash table at once: Redis would search a small one from its start to its end.
    call('HSET', KEYS[3], '', string.rep('-', 65), unpack(sent))
    call('PEXPIRE', KEYS[3], SENT_MS * 2)
    local age, keep = limits()
    call('HSET', KEYS[1], 'epoch', epoch, 'seq', format('%d', seq), 'tag', tag, 'ts', ts_text,
        'swap', format('%d', now), 'age', age, 'keep', keep)
else
    call('HSET', KEYS[3], unpack(sent))
    call('HSET', KEYS[1], 'seq', format('%d', seq), 'tag', tag, 'ts', ts_text)
end

if has_log then
    -- By count: exactly in small logs, in large ones each 32 messages.
    local most = ARGV[3] + 0
    if seq > most and (most < 256 or floor(seq / 32) ~= floor(before_batch / 32)) then
        -- A limit that was lowered is reached in steps, of at most a thousand entries each.
        local length = call('XLEN', KEYS[2])
        if length > most then call('XTRIM', KEYS[2], 'MAXLEN', math.max(most, length - 1000)) end
    end
    -- By age: ten times a second at most, up to a hundred entries.
    if floor(now / 100) ~= floor(last / 100) then
        local age = limits()
        local function is_old(entry) return tonumber(string.match(entry[2][2], '^%d+')) < now - age end
        local oldest = call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
        if oldest and is_old(oldest) then
            local entries, keep = call('XRANGE', KEYS[2], '-', '+', 'COUNT', 101), nil
            for index = 1, #entries do
                keep = entries[index][1]
                if not is_old(entries[index]) then break end
            end
            call('XTRIM', KEYS[2], 'MINID', keep)
        end
    end
end
-- Nobody is here to keep the room: it ends with its history. Its ids end by themselves: an id is known for two minutes, also
-- where the history is shorter.
if not meta[6] or meta[6] == '0' then
    local age, keep = limits()
    call('PEXPIRE', KEYS[2], age)
    call('PEXPIRE', KEYS[1], format('%d', age + keep))
end
return reply
