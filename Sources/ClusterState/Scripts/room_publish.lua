#!lua
-- A batch of messages of one room: dedupe, number, store, relay.
--
-- KEYS  1 meta  2 log  3 sent  4 sent.prev
-- ARGV  1 room  2 epoch should the room be new  3 history messages (0: no log)  4 history age (ms)
--       5 how long meta outlives the log (ms)  6 user channels (0: one room channel)  then the channel or channels,
--       then seven a message: dedupe key, fingerprint, tag, origin session or -, client id, user, body (JSON members)
-- RETURNS {epoch, ts, then one a message: seq (stored) | "SEQ TS" (a duplicate of it) | 0 (the id had another payload)}
-- ATOMICITY  the batch is numbered, stored and relayed in its order, without another message in between. A duplicate is
--            neither stored nor relayed again. No allow-oom: a full Redis refuses the batch before it does anything.

-- What `sent` remembers is swapped away after two minutes or this many messages, and gone after two swaps; so an id is
-- known for at least two minutes, or at least for the last 100,000 messages of its room.
local SENT_MS, SENT_CAP = 120000, 100000

local call, format, floor = redis.call, string.format, math.floor
local room, max_messages, max_age = ARGV[1], ARGV[3], tonumber(ARGV[4])
local channels = tonumber(ARGV[6])
local first = 7 + (channels == 0 and 1 or channels)
local n = (#ARGV - first + 1) / 7

local time = call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)
local meta = call('HMGET', KEYS[1], 'epoch', 'seq', 'tag', 'ts', 'swap', 'swapseq', 'members', 'age', 'keep')
local epoch, seq, tag, last = meta[1], tonumber(meta[2]) or 0, meta[3] or '-', tonumber(meta[4]) or 0
local swap, swap_seq = tonumber(meta[5]) or 0, tonumber(meta[6]) or 0
if not epoch then epoch, seq, tag, last, swap = ARGV[2], 0, '-', 0, 0 end
-- A log or ids from before the room's first message belong to an earlier life of it.
if seq == 0 then call('UNLINK', KEYS[2], KEYS[3], KEYS[4]) end

local ts = now > last and now or last
local ts_text = format('%.0f', ts)
local reply = { epoch, ts_text }

local known, previous
if n == 1 then
    known = { call('HGET', KEYS[3], ARGV[first]) }
    previous = { known[1] or call('HGET', KEYS[4], ARGV[first]) }
else
    local ids = {}
    for index = 1, n do ids[index] = ARGV[first + (index - 1) * 7] end
    known = call('HMGET', KEYS[3], unpack(ids))
    previous = call('HMGET', KEYS[4], unpack(ids))
end

local head = ' ' .. epoch .. ' ' .. (channels > 0 and room .. ' ' or '') .. ts_text .. ' '
local kind = channels > 0 and 'D' or 'M'
local opening = '{"type":"message","room":"' .. room .. '","seq":'
local closing = ',"ts":' .. ts_text .. '}'
local fresh, sent = {}, {}

for index = 1, n do
    local at = first + (index - 1) * 7
    local id, fingerprint = ARGV[at], ARGV[at + 1]
    local before = fresh[id] or known[index] or previous[index]
    if before then
        local before_seq, before_ts, before_fingerprint = string.match(before, '^(%d+) (%d+) (.*)$')
        reply[index + 2] = before_fingerprint == fingerprint and before_seq .. ' ' .. before_ts or 0
    else
        seq = seq + 1
        local seq_text = format('%.0f', seq)
        local new_tag, origin, client_id, body = ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 6]
        if max_messages ~= '0' then
            call('XADD', KEYS[2], 'MAXLEN', max_messages, seq_text .. '-0',
                't', ts_text, 'g', new_tag, 'o', origin, 'i', client_id, 'u', ARGV[at + 5], 'b', body)
        end
        local message = kind .. seq_text .. ' ' .. new_tag .. ' ' .. tag .. head .. origin .. ' ' .. #client_id .. '\n'
            .. client_id .. opening .. seq_text .. ',"tag":"' .. new_tag .. '",' .. body .. closing
        if channels == 0 then
            call('PUBLISH', ARGV[7], message)
        else
            for channel = 7, 6 + channels do call('PUBLISH', ARGV[channel], message) end
        end
        tag = new_tag
        local value = seq_text .. ' ' .. ts_text .. ' ' .. fingerprint
        fresh[id] = value
        sent[#sent + 1] = id
        sent[#sent + 1] = value
        reply[index + 2] = seq
    end
end
if #sent == 0 then return reply end

local swaps = now - swap >= SENT_MS or now < swap or seq - swap_seq > SENT_CAP
if swaps then
    call('UNLINK', KEYS[4])
    if call('EXISTS', KEYS[3]) == 1 then call('RENAME', KEYS[3], KEYS[4]) end
end
call('HSET', KEYS[3], unpack(sent))
if swaps then
    call('PEXPIRE', KEYS[3], SENT_MS * 2)
    call('HSET', KEYS[1], 'epoch', epoch, 'seq', format('%.0f', seq), 'tag', tag, 'ts', ts_text,
        'swap', format('%.0f', now), 'swapseq', format('%.0f', seq))
else
    call('HSET', KEYS[1], 'seq', format('%.0f', seq), 'tag', tag, 'ts', ts_text)
end
if meta[8] ~= ARGV[4] or meta[9] ~= ARGV[5] then call('HSET', KEYS[1], 'age', ARGV[4], 'keep', ARGV[5]) end

-- Ten times a second at most, up to a hundred entries: what has passed the history age.
if max_messages ~= '0' and floor(now / 100) ~= floor(last / 100) then
    local oldest = call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
    if oldest and tonumber(oldest[2][2]) < now - max_age then
        local entries = call('XRANGE', KEYS[2], '-', '+', 'COUNT', 101)
        local keep
        for index = 1, #entries do
            keep = entries[index][1]
            if tonumber(entries[index][2][2]) >= now - max_age then break end
        end
        call('XTRIM', KEYS[2], 'MINID', keep)
    end
end
-- Nobody is here to keep the room: it ends with its history.
if (tonumber(meta[7]) or 0) == 0 then
    call('PEXPIRE', KEYS[2], max_age)
    call('PEXPIRE', KEYS[1], format('%.0f', max_age + tonumber(ARGV[5])))
end
return reply
