#!lua
-- A batch of messages of one room: dedupe, number, store, relay. The hot path of the cluster's Redis: as few calls and
-- arguments as there can be. A batch without duplicates is one entry of the log and one publication, whatever its size.
--
-- KEYS  1 meta  2 log  3 sent  4 sent.prev
-- ARGV  1 epoch should the room be new  2 history messages (0: no log)
--       3 "AGE KEEP": history age (ms), how long meta outlives the log (ms)
--       4 the messages, as RecordBatch writes them  5 " ROOM" of a private room, else ''
--       6 how many channels  7... the channels  then "FINGERPRINT TAG\n" of all messages, no fingerprint twice, tags of
--       four characters  then the dedupe key of each, no two the same
-- RETURNS {epoch, ts, seq of the first: all were stored}
--         or {epoch, ts, {one a message: seq (stored) | "SEQ TS TAG" (a duplicate of it) | 0 (the id had another payload)}}
-- ATOMICITY  the batch is numbered, stored and relayed in its order, without another message in between. A duplicate is
--            neither stored nor relayed again. No allow-oom: a full Redis refuses the batch before it does anything.

-- What `sent` remembers is swapped away after two minutes or some 100,000 messages, and gone after two swaps; so an id is
-- known for at least two minutes, or at least for the last 100,000 messages of its room. What it has of a message is
-- "SEQ TS FINGERPRINT TAG"; of all messages of a batch the SEQ of the first, beside "#SEQ": "TS\n" and the batch's marks; so the cap is of
-- one and a half fields a message.
local SENT_MS, SENT_CAP = 120000, 150000
-- A log of fewer messages than this has one in each entry, to be trimmed to the message.
local EXACT = 256

local call, format, floor, match = redis.call, string.format, math.floor, string.match
-- Arithmetic on a string costs Lua half of what tonumber() does.
local most, last_channel = ARGV[2] + 0, ARGV[6] + 6
local marks, first = ARGV[last_channel + 1], last_channel + 2
local n = #ARGV - first + 1

local time = call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)
local meta = call('HMGET', KEYS[1], 'epoch', 'seq', 'tag', 'ts', 'swap', 'members', 'oldest', 'age')
local epoch, before, tag, last, swap = meta[1], (meta[2] or 0) + 0, meta[3] or '-', (meta[4] or 0) + 0, meta[5]
if not epoch then epoch, before, tag, last, swap = ARGV[1], 0, '-', 0, false end
-- A log or ids from before the room's first message belong to an earlier life of it.
if before == 0 then call('UNLINK', KEYS[2], KEYS[3], KEYS[4]) end
-- '%d' of a Lua number is exact up to 2^53, as '%.0f' is, and takes a third of the time.
local ts = format('%d', now > last and now or last)

local known, previous
if n == 1 then
    known = { call('HGET', KEYS[3], ARGV[first]) }
    previous = { known[1] or call('HGET', KEYS[4], ARGV[first]) }
else
    known = call('HMGET', KEYS[3], unpack(ARGV, first))
    previous = call('HMGET', KEYS[4], unpack(ARGV, first))
end
local has_duplicates = false
for index = 1, n do
    if known[index] or previous[index] then
        has_duplicates = true
        break
    end
end

-- By key and first seq: what the messages of a batch got, "SEQ TS TAG" by fingerprint. Read once, for a whole batch may come again.
local batches = {}
local function batch_of(key, base)
    local found = batches[key .. base]
    if not found then
        found = {}
        local number, at = base - 1, nil
        for one, two in string.gmatch(call('HGET', key, '#' .. base) or '', '(%S+) ?(%S*)\n') do
            if at then found[one] = format('%d %s %s', number, at, two) else at = one end
            number = number + 1
        end
        batches[key .. base] = found
    end
    return found
end

--- What a message got when it came first: "SEQ TS TAG", or 0 when it is another one.
local function earlier(key, value, fingerprint)
    local seq, at, its_fingerprint, its_tag = match(value, '^(%d+) (%d+) (%S+) (%S+)$')
    if seq then return its_fingerprint == fingerprint and seq .. ' ' .. at .. ' ' .. its_tag or 0 end
    return batch_of(key, value)[fingerprint] or 0
end

local seq, sent, outcomes = before, {}, nil
if n == 1 or has_duplicates then
    local index, found = 0, {}
    for fingerprint, its_tag in string.gmatch(marks, '(%S+) (%S+)\n') do
        index = index + 1
        if known[index] then
            found[index] = earlier(KEYS[3], known[index], fingerprint)
        elseif previous[index] then
            found[index] = earlier(KEYS[4], previous[index], fingerprint)
        else
            seq = seq + 1
            found[index] = seq
            sent[#sent + 1] = ARGV[first + index - 1]
            sent[#sent + 1] = format('%d %s %s %s', seq, ts, fingerprint, its_tag)
        end
    end
    outcomes = has_duplicates and found or nil
else
    seq = before + n
    local base = format('%d', before + 1)
    sent[1], sent[2] = '#' .. base, ts .. '\n' .. marks
    for index = first, #ARGV do
        local at = (index - first) * 2
        sent[at + 3], sent[at + 4] = ARGV[index], base
    end
end
if seq == before then return { epoch, ts, outcomes } end

--- Stores and relays messages in a row, of which the last has this seq and tag.
local function write(records, count, seq, last_tag)
    local number, head = format('%d', seq), ts .. ' ' .. format('%d', count)
    if most > 0 then call('XADD', KEYS[2], number .. '-0', 'h', head, 'b', records) end
    local message = (ARGV[5] == '' and 'M' or 'D') .. number .. ' ' .. head .. ' ' .. tag .. ' ' .. epoch .. ARGV[5]
        .. '\n' .. records
    for channel = 7, last_channel do call('PUBLISH', ARGV[channel], message) end
    tag = last_tag
end

local keeps_batches = most == 0 or most >= EXACT
if not outcomes and (n == 1 or keeps_batches) then
    write(ARGV[4], n, seq, string.sub(marks, -5, -2))
else
    -- In runs between duplicates, or each alone.
    local from, number, index = 1, before, 0
    local run_from, run_count, run_tag = 1, 0, nil
    local function end_run()
        if run_count > 0 then write(string.sub(ARGV[4], run_from, from - 1), run_count, number, run_tag) end
        run_count = 0
    end
    for its_tag in string.gmatch(marks, ' (%S+)\n') do
        index = index + 1
        local is_new = not outcomes or type(outcomes[index]) == 'number' and outcomes[index] > 0
        if run_count > 0 and not (is_new and keeps_batches) then end_run() end
        local id_bytes, body_bytes, past_header = match(ARGV[4], '^%S+ %S+ (%d+) (%d+) [^\n]*\n()', from)
        if is_new then
            if run_count == 0 then run_from = from end
            number, run_count, run_tag = number + 1, run_count + 1, its_tag
        end
        from = past_header + id_bytes + body_bytes
    end
    end_run()
end

local function limits() return match(ARGV[3], '^(%d+) (%d+)$') end

-- The clock may go back; then, too, a new generation starts, so that none is without its end.
local swaps = not swap or now - swap >= SENT_MS or now - swap < 0
if not swaps and floor(seq / 1024) ~= floor(before / 1024) then swaps = call('HLEN', KEYS[3]) >= SENT_CAP end
if swaps then
    call('UNLINK', KEYS[4])
    if call('EXISTS', KEYS[3]) == 1 then call('RENAME', KEYS[3], KEYS[4]) end
    -- A field this long makes it a hash table at once: Redis would search a small one from its start to its end.
    call('HSET', KEYS[3], '', string.rep('-', 65), unpack(sent))
    call('PEXPIRE', KEYS[3], SENT_MS * 2)
    local age, keep = limits()
    call('HSET', KEYS[1], 'epoch', epoch, 'seq', format('%d', seq), 'tag', tag, 'ts', ts,
        'swap', format('%d', now), 'age', age, 'keep', keep)
else
    call('HSET', KEYS[3], unpack(sent))
    call('HSET', KEYS[1], 'seq', format('%d', seq), 'tag', tag, 'ts', ts)
end

--- Whole entries go, so that a large log may keep some more than it should.
local function trim_by_count()
    if seq <= most or (most >= EXACT and floor(seq / 32) == floor(before / 32)) then return end
    local length = call('XLEN', KEYS[2])
    if length > most + 1000 then
        -- A limit that was lowered is reached in steps.
        call('XTRIM', KEYS[2], 'MAXLEN', length - 1000)
    else
        call('XTRIM', KEYS[2], 'MINID', format('%d', seq - most + 1))
    end
end

--- Up to a hundred messages and the rest of their entry, and only when the oldest that was there at the last look is too old
--- by now.
local function trim_by_age(age)
    if meta[7] and meta[7] + 0 >= now - age then return end
    local from, keep, oldest, trimmed = '-', nil, nil, 0
    repeat
        local entries = call('XRANGE', KEYS[2], from, '+', 'COUNT', trimmed == 0 and 1 or 10)
        for index = 1, #entries do
            local sent_at, count = match(entries[index][2][2], '^(%d+) (%d+)$')
            keep, oldest = entries[index][1], sent_at
            if trimmed >= 100 or (sent_at and sent_at + 0 >= now - age) then
                entries = {}
                break
            end
            trimmed = trimmed + (count or 1)
        end
        from = '(' .. (keep or '')
    until #entries == 0
    if trimmed > 0 then call('XTRIM', KEYS[2], 'MINID', keep) end
    if oldest then call('HSET', KEYS[1], 'oldest', oldest) end
end

if most > 0 then
    trim_by_count()
    -- Ten times a second at most. A log into which nobody writes any more ends with its newest message; what comes within the
    -- same tenth changes nothing of that.
    if floor(now / 100) ~= floor(last / 100) then
        local age, keep = limits()
        trim_by_age(age)
        call('PEXPIRE', KEYS[2], age + 100)
        if not swaps and meta[8] ~= age then call('HSET', KEYS[1], 'age', age, 'keep', keep) end
    end
end
-- Nobody is here to keep the room: it ends with its history. Its ids end by themselves: an id is known for two minutes, also
-- where the history is shorter.
if not meta[6] or meta[6] == '0' then
    local age, keep = limits()
    call('PEXPIRE', KEYS[1], format('%d', age + keep))
end
return { epoch, ts, outcomes or before + 1 }
