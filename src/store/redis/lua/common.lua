-- The shared code of the scripts: the head, the window, and when a move applies. It is prepended to each of them.
--
-- KEYS  the stream, the head (hash), the window (sorted set by block number), what readers missed (hash), the positions of
--       readers (hash), the filters that were replaced (list); all in one slot
-- Every script first reads and compares, and writes the head last. Nothing after the first write can fail.

local stream, headKey, windowKey, missedKey, readersKey, filtersKey =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

-- The version of the journal that these scripts write. Version 1 has neither this field nor any after `part_digest`.
local version = 2

-- Formats numbers up to 2^53 without an exponent.
local function text(number)
  return string.format('%.0f', number)
end

local headFields = {
  'number', 'hash', 'part', 'final_number', 'final_hash', 'start_number', 'start_hash', 'filter', 'filter_since',
  'added', 'part_digest', 'version', 'epoch', 'epoch_reason', 'first_number', 'abi', 'paused', 'alive',
  'filter_content', 'config_version',
}

local function digestMark(hash, part, added)
  return table.concat({ hash, text(part), text(added), '' }, ':')
end

-- Reads the head. It has no number before the first block, and after a reset. `added` counts every appended entry.
local function readHead()
  local values = redis.call('HMGET', headKey, unpack(headFields))
  local head = {}
  for i, field in ipairs(headFields) do head[field] = values[i] or nil end
  head.version = tonumber(head.version or 1)
  if not head.number then return head end
  for _, field in ipairs({ 'number', 'part', 'start_number', 'added' }) do head[field] = tonumber(head[field]) end
  -- Version 1 moves the head without updating the digest, and may write another part of the same length. The digest is
  -- therefore bound to the part and to the number of entries, which rises with every move that writes entries.
  local mark = digestMark(head.hash, head.part, head.added)
  local digest = head.part_digest or ''
  head.digest = head.part > 0 and string.sub(digest, 1, #mark) == mark and string.sub(digest, #mark + 1) or ''
  return head
end

-- The digest of a part as stored: bound to the part it belongs to.
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

-- A later release wrote this journal, and this one cannot maintain what that release added.
local function newer(head)
  return head.version > version and { 'newer', text(head.version) } or nil
end

-- The commands that scripts call after the first append, in a form that changes nothing.
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

-- Fails before anything is written if a later command would be refused: an entry without its record and head would be
-- appended again. From Redis 7 on the ACL can be queried; before, the commands are tried.
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

-- Parses an entry id into two numbers; `isBefore` orders them.
local function place(id)
  local millis, sequence = string.match(id, '^(%d+)%-(%d+)$')
  return { tonumber(millis), tonumber(sequence) }
end

local function isBefore(a, b)
  if a[1] ~= b[1] then return a[1] < b[1] end
  return a[2] < b[2]
end

-- The identity of an entry: block hash, log index, removed.
local function identityOf(entry)
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  return table.concat({ tostring(fields.block_hash), tostring(fields.log_index), tostring(fields.removed) }, ':')
end

-- Id and identity of the last entry; '' without entries.
local function lastEntry()
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  if not last then return '', '' end
  return last[1], identityOf(last)
end

-- The highest id that the stream ever had, and the highest that was deleted by hand (Redis 7). nil without the right to run
-- XINFO, or without a stream.
local function streamIds()
  local info, ids = redis.pcall('XINFO', 'STREAM', stream), {}
  for i = 1, info.err and 0 or #info, 2 do ids[info[i]] = info[i + 1] end
  return ids['last-generated-id'], ids['max-deleted-entry-id']
end

-- How the head, the window and the end of the stream contradict each other; nil if they do not.
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
  -- Only the head and the start block may have no entries.
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

-- Why a move with this filter and expected position does not apply; nil if it does. A key that was deleted since the
-- journal was loaded is a conflict, so that the journal is loaded again.
local function compare(head, filter, number, hash, part, digest)
  if newer(head) then return newer(head) end
  if not head.number then return conflict(head) end
  if head.filter ~= filter then return { 'filter', head.filter } end
  if head.number == tonumber(number) and head.hash == hash and head.part == tonumber(part) and head.digest == digest then
    return misfit(head) and conflict(head) or nil
  end
  return conflict(head)
end

-- The block from which on every entry is stored: the block of the first entry, or the next one unless this entry is known to
-- be the first of its block. Entries of an earlier epoch are trimmed before any of this one.
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

-- The fields that complete a head for version 2; empty if it is complete.
--
-- token  for the epoch of a journal that has none
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
