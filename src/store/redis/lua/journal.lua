-- What the scripts share. It is put in front of each of them.
--
-- KEYS  the stream, the head (hash), the window (sorted set by block number), what readers missed (hash), where readers
--       are (hash), the filters that were replaced (list); all in one slot
-- Every script reads and compares first, and writes the head last; nothing after the first write can fail.

local stream, headKey, windowKey, missedKey, readersKey, filtersKey =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

-- Of the journal that these scripts write. Version 1 has no such field, nor any of those after `part_digest`.
local version = 2

-- Numbers up to 2^53 without an exponent.
local function text(number)
  return string.format('%.0f', number)
end

local headFields = {
  'number', 'hash', 'part', 'final_number', 'final_hash', 'start_number', 'start_hash', 'filter', 'filter_since',
  'added', 'part_digest', 'version', 'epoch', 'epoch_reason', 'first_number', 'paused', 'alive',
}

local function digestMark(hash, part, added)
  return table.concat({ hash, text(part), text(added), '' }, ':')
end

-- The head. It has no number before the first block, and after a reset. `added` counts every entry that was appended.
local function readHead()
  local values = redis.call('HMGET', headKey, unpack(headFields))
  local head = {}
  for i, field in ipairs(headFields) do head[field] = values[i] or nil end
  head.version = tonumber(head.version or 1)
  if not head.number then return head end
  for _, field in ipairs({ 'number', 'part', 'start_number', 'added' }) do head[field] = tonumber(head[field]) end
  -- Version 1 moves the head and leaves the digest behind, and may write a part of the same length anew: the digest
  -- counts only for the part and the number of entries it was written with, which every move raises.
  local mark = digestMark(head.hash, head.part, head.added)
  local digest = head.part_digest or ''
  head.digest = head.part > 0 and string.sub(digest, 1, #mark) == mark and string.sub(digest, #mark + 1) or ''
  return head
end

-- What the head says of a part: its digest, bound to it.
local function partDigest(hash, part, added, digest)
  if part <= 0 or digest == '' then return '' end
  return digestMark(hash, part, added) .. digest
end

-- A record of the window: number, hash, parent, first and last entry id, count, entries added before it.
local function parse(member)
  if not member then return nil end
  local number, hash, parent, first, last, count, before =
    string.match(member, '^(%d+) (%S+) (%S+) (%S+) (%S+) (%d+) (%d+)$')
  return {
    member = member, number = tonumber(number), hash = hash, parent = parent, first = first, last = last,
    count = tonumber(count), before = tonumber(before),
  }
end

local function topRecord()
  return parse(redis.call('ZREVRANGE', windowKey, 0, 0)[1])
end

local function recordAt(number)
  return parse(redis.call('ZRANGEBYSCORE', windowKey, number, number)[1])
end

local function record(r)
  local member = table.concat({ text(r.number), r.hash, r.parent, r.first, r.last, text(r.count), text(r.before) }, ' ')
  redis.call('ZADD', windowKey, text(r.number), member)
end

local function forget(r)
  redis.call('ZREM', windowKey, r.member)
end

local function conflict(head)
  if not head.number then return { 'conflict' } end
  return { 'conflict', text(head.number), head.hash, text(head.part), head.digest }
end

-- A later release wrote this journal: what else is in it cannot be kept true here.
local function newer(head)
  return head.version > version and { 'newer', text(head.version) } or nil
end

-- What the scripts call after they have begun to append, in a form that changes nothing.
local harmless = {
  { 'HSET', headKey, 'version', text(version) },
  { 'ZADD', windowKey, 'XX', '0', '' },
  { 'ZREM', windowKey, '' },
  { 'ZREMRANGEBYSCORE', windowKey, '1', '0' },
  { 'ZRANGE', windowKey, '0', '0' },
  { 'ZRANGEBYSCORE', windowKey, '1', '0' },
  { 'XTRIM', stream, 'MAXLEN', '~', '9007199254740992' },
  { 'XLEN', stream },
  { 'XRANGE', stream, '0-1', '0-1' },
}

-- Fails, before anything is written, where a later call would be refused: an entry without its record and the head would
-- be appended again. Redis 7 says what this user may do; before, the calls are tried.
local isAllowed = false
local function mayWrite()
  if isAllowed then return end
  if redis.acl_check_cmd and not redis.acl_check_cmd('XADD', stream, '*', 'chain_id', '1') then
    error({ err = 'NOPERM this user has no permission to run XADD on ' .. stream })
  end
  for _, command in ipairs(harmless) do
    if not redis.acl_check_cmd then
      redis.call(unpack(command))
    elseif not redis.acl_check_cmd(unpack(command)) then
      error({ err = 'NOPERM this user has no permission to run ' .. command[1] .. ' on ' .. command[2] })
    end
  end
  isAllowed = true
end

-- An id of an entry as two numbers, and their order.
local function place(id)
  local millis, sequence = string.match(id, '^(%d+)%-(%d+)$')
  return { tonumber(millis), tonumber(sequence) }
end

local function isBefore(a, b)
  if a[1] ~= b[1] then return a[1] < b[1] end
  return a[2] < b[2]
end

-- Which log of which block an entry is, removed or not.
local function identityOf(entry)
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  return table.concat({ tostring(fields.block_hash), tostring(fields.log_index), tostring(fields.removed) }, ':')
end

-- Id and identity of the last entry; '' where there is none.
local function lastEntry()
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  if not last then return '', '' end
  return last[1], identityOf(last)
end

-- The highest id that the stream ever had, and the highest that was deleted by hand (Redis 7); nil where this user may not
-- ask, or there is no stream.
local function streamIds()
  local info, ids = redis.pcall('XINFO', 'STREAM', stream), {}
  for i = 1, info.err and 0 or #info, 2 do ids[info[i]] = info[i + 1] end
  return ids['last-generated-id'], ids['max-deleted-entry-id']
end

-- What does not fit together of the head, the window and the end of the stream; nil when nothing.
local function misfit(head)
  local members = redis.call('ZREVRANGE', windowKey, 0, 1)
  local top = parse(members[1])
  if top then
    if top.number ~= head.number or top.hash ~= head.hash then
      return 'its head is block ' .. text(head.number) .. ' and its last record is block ' .. text(top.number)
    end
  elseif head.number ~= head.start_number - 1 and text(head.number) ~= head.final_number then
    return 'its head is block ' .. text(head.number) .. ', which is not final, and it has no records'
  end
  if head.added > 0 and redis.call('EXISTS', stream) == 0 then return 'it has a head and no stream' end
  -- Only the head and the start block may be without entries.
  for _, member in ipairs(members) do
    local known = parse(member)
    if known.count > 0 then
      local last = streamIds()
      if last and isBefore(place(last), place(known.last)) then return 'its stream ends before its last record' end
      return nil
    end
  end
  return nil
end

-- What is wrong with a head, given the filter and the position that a move expects; nil when nothing is. Where a key was
-- taken away since the journal was loaded, it is to be loaded again.
local function compare(head, filter, number, hash, part, digest)
  if newer(head) then return newer(head) end
  if not head.number then return conflict(head) end
  if head.filter ~= filter then return { 'filter', head.filter } end
  if head.number == tonumber(number) and head.hash == hash and head.part == tonumber(part) and head.digest == digest then
    return misfit(head) and conflict(head) or nil
  end
  return conflict(head)
end

local function retentionOf(lines)
  local values = {}
  for line in string.gmatch(lines, '[^\n]+') do values[#values + 1] = line end
  return { maxLength = tonumber(values[1]), backlog = tonumber(values[2]), groups = { unpack(values, 3) } }
end

-- A reader that has not been seen for so long (seconds) is not waited for any more.
local pinnedFor = 7 * 24 * 3600

-- Where consumer groups and readers are, lowest first: the id of the last entry that was delivered to each, and whether
-- nothing may go that it has not read. Where this user may not ask for groups, those that are pinned could be anywhere.
local function positions(retention)
  local found, named = {}, {}
  for _, name in ipairs(retention.groups) do named[name] = true end
  local all = named['*'] or false
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  if groups.err and next(named) then
    found[1] = { name = 'group:' .. next(named), id = '0-0', pinned = true }
  end
  for _, flat in ipairs(groups.err and {} or groups) do
    local group = {}
    for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
    found[#found + 1] = {
      name = 'group:' .. group.name, id = group['last-delivered-id'], pinned = all or named[group.name] or false,
    }
  end
  local readers = redis.pcall('HGETALL', readersKey)
  local now = tonumber(redis.call('TIME')[1])
  for i = 1, readers.err and 0 or #readers, 2 do
    local isJson, reader = pcall(function() return cjson.decode(readers[i + 1]) end)
    if isJson and type(reader) == 'table' and string.match(tostring(reader.id), '^%d+%-%d+$') then
      local seen = tonumber(reader.seen) or now
      found[#found + 1] = { name = 'reader:' .. readers[i], id = reader.id, pinned = now - seen < pinnedFor }
    end
  end
  for _, one in ipairs(found) do one.place = place(one.id) end
  table.sort(found, function(a, b) return isBefore(a.place, b.place) end)
  return found
end

-- How many entries beyond the limit are not worth a trim: whole nodes go, of 100 entries at most.
local slack = 100

-- How many entries one call removes at most: the server does nothing else meanwhile.
local mostDropped = 100000

-- Removes the oldest entries until about `keep` are left, and counts for each group and reader what it has not seen of
-- them. First goes what everybody has seen, then what only the one furthest behind has not, and so on, up to the first
-- that is pinned.
--
-- Returns how many went, and the pinned one that keeps the rest
local function dropOldest(keep, retention)
  local all, dropped, behind = positions(retention), 0, 0
  repeat
    local over = redis.call('XLEN', stream) - keep
    if over < slack or dropped >= mostDropped then return dropped end
    local first = place(redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1][1])
    while all[behind + 1] and isBefore(all[behind + 1].place, first) and not all[behind + 1].pinned do
      behind = behind + 1
    end
    for i = 1, behind do
      if all[i].pinned then return dropped, all[i] end
    end
    local most = math.min(over, mostDropped - dropped)
    local seen = {}
    -- No more than `most` go: those of them that are at or below the position are no loss.
    for i = 1, behind do seen[i] = #redis.call('XRANGE', stream, '-', all[i].id, 'COUNT', most) end
    mayWrite()
    local nearest = all[behind + 1]
    local gone
    if nearest then
      gone = redis.call('XTRIM', stream, 'MINID', '~', nearest.id, 'LIMIT', text(most))
    else
      gone = redis.call('XTRIM', stream, 'MAXLEN', '~', text(keep), 'LIMIT', text(most))
    end
    for i = 1, behind do
      -- What was missed is worth less than what comes: no failure here.
      if gone > seen[i] then redis.pcall('HINCRBY', missedKey, all[i].name, gone - seen[i]) end
    end
    dropped, behind = dropped + gone, behind + 1
  until not nearest
  return dropped
end

-- The block from which on everything is kept: that of the first entry, or the next one unless it is known that this entry
-- is the first of its block. Entries of an earlier epoch go before any of this one.
local function firstNumber(head)
  local length = redis.call('XLEN', stream)
  if head.added == 0 or length > head.added then return head.start_number end
  local entry = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if not entry then return head.number + 1 end
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  local number = tonumber(fields.block_number)
  local known = recordAt(number)
  local isFirst = length == head.added
    or (known and known.first == entry[1])
    or (fields.log_index == '0' and fields.removed == 'false')
  return isFirst and number or number + 1
end

-- How much of its memory this server uses, 0 … 1; nil where it has no limit, or this user may not ask.
local function memoryUsed()
  local info = redis.pcall('INFO', 'memory')
  if type(info) ~= 'string' then return nil end
  local used = tonumber(string.match(info, 'used_memory:(%d+)'))
  local limit = tonumber(string.match(info, 'maxmemory:(%d+)'))
  return used and limit and limit > 0 and used / limit or nil
end

-- Memory above which a stream does not grow for a pinned reader, and below which it grows again.
local memoryHigh, memoryLow = 0.8, 0.75

-- How many of the newest entries stay, whoever has read what: `maxLength`, or more where the window needs them.
local function keepOf(head, maxLength)
  -- Only the start block and the head may be without entries.
  for _, member in ipairs(redis.call('ZRANGE', windowKey, 0, 2)) do
    local oldest = parse(member)
    if oldest.count > 0 then return math.max(maxLength, head.added - oldest.before) end
  end
  return maxLength
end

-- Trims to about `maxLength` entries (0: keeps all), but never what the window or a pinned reader needs, and says in the
-- head whether publishing pauses since a pinned reader is too far behind.
--
-- retention  a line each: the entries to keep for whoever comes later, those to keep for pinned readers, the names of the
--            groups that are pinned ('*': all)
-- Returns how many entries went, then the name of the pinned reader that holds others back or '', how many entries it has
--         not read, how many there are, why publishing pauses ('backlog', 'memory') or ''
local function trim(head, retention)
  retention = retentionOf(retention)
  local wasPaused = head.paused == '1'
  head.paused = '0'
  if retention.maxLength == 0 then return { 0, '', 0, 0, '' } end
  local keep = keepOf(head, retention.maxLength)
  if redis.call('XLEN', stream) < keep + slack then return { 0, '', 0, 0, '' } end
  local dropped, holder = dropOldest(keep, retention)
  if dropped > 0 then head.first_number = nil end
  if not holder then return { dropped, '', 0, 0, '' } end
  local length = redis.call('XLEN', stream)
  -- What it has read and is still there is what did not fill a node.
  local behind = length - #redis.call('XRANGE', stream, '-', holder.id, 'COUNT', mostDropped)
  local memory = memoryUsed()
  local why = ''
  if length >= math.max(retention.backlog * (wasPaused and 0.9 or 1), keep) then why = 'backlog'
  elseif memory and memory >= (wasPaused and memoryLow or memoryHigh) then why = 'memory' end
  if why ~= '' then head.paused = '1' end
  return { dropped, holder.name, behind, length, why }
end

-- What is to be written of a head so that it says what version 2 says: nothing where it does already.
--
-- token  of a new epoch, for a journal that has none
local function facts(head, token)
  local fields = {}
  if head.version < version or not head.epoch then
    head.epoch, head.epoch_reason = head.epoch or token, head.epoch_reason or 'begun'
    fields = {
      'version', text(version), 'epoch', head.epoch, 'epoch_reason', head.epoch_reason, 'abi', '',
    }
  end
  if not head.first_number then
    fields[#fields + 1] = 'first_number'
    fields[#fields + 1] = text(firstNumber(head))
  end
  return fields
end
