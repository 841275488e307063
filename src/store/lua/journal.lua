-- What the scripts share. It is put in front of each of them.
--
-- KEYS  the stream, the head (hash), the window (sorted set by block number); all in one slot
-- Every script reads and compares first, and writes the head last; nothing after the first write can fail.

local stream, headKey, windowKey = KEYS[1], KEYS[2], KEYS[3]

-- Numbers up to 2^53 without an exponent.
local function text(number)
  return string.format('%.0f', number)
end

local headFields = {
  'number', 'hash', 'part', 'final_number', 'final_hash', 'start_number', 'start_hash', 'filter', 'filter_since', 'added', 'part_digest',
}

local function digestMark(hash, part, added)
  return table.concat({ hash, text(part), text(added), '' }, ':')
end

-- The head, or nil. `added` counts every entry that was ever appended.
local function readHead()
  local values = redis.call('HMGET', headKey, unpack(headFields))
  if not values[1] then return nil end
  local head = {}
  for i, field in ipairs(headFields) do head[field] = values[i] end
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
  if not head then return { 'conflict' } end
  return { 'conflict', text(head.number), head.hash, text(head.part), head.digest }
end

-- What is wrong with a head, given the filter and the position that a move expects; nil when nothing is.
local function compare(head, filter, number, hash, part, digest)
  if not head then return conflict(nil) end
  if head.filter ~= filter then return { 'filter', head.filter } end
  if head.number == tonumber(number) and head.hash == hash and head.part == tonumber(part) and head.digest == digest then
    return nil
  end
  return conflict(head)
end

-- Trims to about `maxLength` entries (0: keeps all), but never what the window needs. The work of one call is bounded:
-- an approximate trim takes at most 100 nodes of 100 entries.
local function trim(head, maxLength)
  if maxLength == 0 then return 0 end
  local keep = maxLength
  -- Only the start block and the head may be without entries.
  for _, member in ipairs(redis.call('ZRANGE', windowKey, 0, 2)) do
    local oldest = parse(member)
    if oldest.count > 0 then
      keep = math.max(keep, head.added - oldest.before)
      break
    end
  end
  if redis.call('XLEN', stream) <= keep then return 0 end
  return redis.call('XTRIM', stream, 'MAXLEN', '~', text(keep))
end
