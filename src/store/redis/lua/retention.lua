-- What is kept of a stream: the positions of its readers, trimming, and pausing. It is prepended to each script, after
-- common.lua.

local function retentionOf(lines)
  local values = {}
  for line in string.gmatch(lines, '[^\n]+') do values[#values + 1] = line end
  return { maxLength = tonumber(values[1]), backlog = tonumber(values[2]), groups = { unpack(values, 3) } }
end

-- How long a reader stays pinned after it was last seen (seconds).
local pinnedFor = 7 * 24 * 3600

-- The positions of consumer groups and readers, lowest first: the id of the last delivered entry, and whether the entries
-- after it are pinned. Without the right to list groups, the position of the pinned ones is unknown: they hold everything.
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

-- Fewer entries than this beyond the limit are not worth a trim: Redis drops whole nodes of at most 100 entries.
local slack = 100

-- The maximum of entries that one call removes: the server is blocked meanwhile.
local mostDropped = 100000

-- Removes the oldest entries until about `keep` are left, and counts for each group and reader how many of them it has not
-- read. Entries that all have read go first, then those that only the one furthest behind has not read, and so on, up to
-- the first pinned one.
--
-- Returns how many entries were removed, and the pinned group or reader that holds the rest
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
    -- At most `most` entries are removed. Those at or below the position have been read.
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
      -- Counting missed entries is less important than publishing: a failure is ignored.
      if gone > seen[i] then redis.pcall('HINCRBY', missedKey, all[i].name, gone - seen[i]) end
    end
    dropped, behind = dropped + gone, behind + 1
  until not nearest
  return dropped
end

-- The share of its memory limit that this server uses, 0 … 1; nil without a limit, or without the right to run INFO.
local function memoryUsed()
  local info = redis.pcall('INFO', 'memory')
  if type(info) ~= 'string' then return nil end
  local used = tonumber(string.match(info, 'used_memory:(%d+)'))
  local limit = tonumber(string.match(info, 'maxmemory:(%d+)'))
  return used and limit and limit > 0 and used / limit or nil
end

-- The memory use at which publishing pauses for a pinned reader, and below which it resumes.
local memoryHigh, memoryLow = 0.8, 0.75

-- How many of the newest entries stay in any case: `maxLength`, or more if the window needs them.
local function keepOf(head, maxLength)
  -- Only the start block and the head may have no entries.
  for _, member in ipairs(redis.call('ZRANGE', windowKey, 0, 2)) do
    local oldest = parse(member)
    if oldest.count > 0 then return math.max(maxLength, head.added - oldest.before) end
  end
  return maxLength
end

-- Trims to about `maxLength` entries (0: keeps all), but never entries that the window or a pinned reader needs, and sets in
-- the head whether publishing is paused because a pinned reader is too far behind.
--
-- retention  one value per line: the entries to keep in any case, those to keep for pinned readers, the names of the pinned
--            groups ('*': all)
-- Returns how many entries were removed, then the name of the pinned reader that delays trimming or '', how many entries it
--         has not read, the length of the stream, why publishing is paused ('backlog', 'memory') or ''
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
  -- Entries that it has read and that are still here share a node with unread ones.
  local behind = length - #redis.call('XRANGE', stream, '-', holder.id, 'COUNT', mostDropped)
  local memory = memoryUsed()
  local why = ''
  if length >= math.max(retention.backlog * (wasPaused and 0.9 or 1), keep) then why = 'backlog'
  elseif memory and memory >= (wasPaused and memoryLow or memoryHigh) then why = 'memory' end
  if why ~= '' then head.paused = '1' end
  return { dropped, holder.name, behind, length, why }
end
