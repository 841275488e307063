-- The statistics of a stream, read in one step. What this server does not support, or this user may not run, is omitted.
--
-- ARGV  retention
-- Returns added, first number, epoch, its reason, paused (0 or 1), seconds since the last heartbeat of an ingestor, entries,
--         how many of them stay in any case, first id, last id, bytes, groups (false without the right to list them; a lag
--         that Redis does not report is counted; with pending entries each has `idle`), readers, what both missed

local retention = retentionOf(ARGV[1])
local head = readHead()
local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
local length = redis.call('XLEN', stream)
local bytes = redis.pcall('MEMORY', 'USAGE', stream)
local groups = redis.pcall('XINFO', 'GROUPS', stream)
local readers = redis.pcall('HGETALL', readersKey)
local missed = redis.pcall('HGETALL', missedKey)

-- Requests for the number of entries after an id, each with a callback.
local asked = {}
local function ask(id, take)
  asked[#asked + 1] = { id = id, place = place(id), take = take }
end

-- How long ago (milliseconds) the most recently active consumer of a group asked for entries.
local function idleOf(name)
  local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, name)
  local least
  for _, consumer in ipairs(consumers.err and {} or consumers) do
    for i = 1, #consumer, 2 do
      if consumer[i] == 'idle' and (not least or consumer[i + 1] < least) then least = consumer[i + 1] end
    end
  end
  return least
end

-- Redis 6 reports no lag, and later versions none after entries were deleted or the group was set back. If the next entry of
-- a group was trimmed, the lag of Redis includes entries that the group never gets.
for _, group in ipairs(groups.err and {} or groups) do
  local name, pending, id
  for i = 1, #group, 2 do
    if group[i] == 'name' then name = group[i + 1] end
    if group[i] == 'pending' then pending = group[i + 1] end
  end
  local idle = pending > 0 and idleOf(name)
  if idle then group[#group + 1], group[#group + 2] = 'idle', idle end
  local at = #group + 2
  for i = 1, #group, 2 do
    if group[i] == 'lag' then at = i + 1 end
    if group[i] == 'last-delivered-id' then id = group[i + 1] end
  end
  if not group[at] or (first and isBefore(place(id), place(first[1]))) then
    ask(id, function(lag) group[at - 1], group[at] = 'lag', lag end)
  end
end

local found = {}
for i = 1, readers.err and 0 or #readers, 2 do
  local id = string.match(readers[i + 1], '"id"%s*:%s*"(%d+%-%d+)"')
  if id then
    local reader = { readers[i], readers[i + 1], id, false }
    found[#found + 1] = reader
    ask(id, function(lag) reader[4] = lag end)
  end
end

-- The one nearest to the end comes first, and each continues where the one before it stopped: at most a thousand entries are
-- counted, however many requests there are. For those further away the count is unknown.
local mostCounted = 1000
local counted, upTo = 0, '+'
table.sort(asked, function(a, b) return isBefore(b.place, a.place) end)
for _, one in ipairs(asked) do
  if not last or not isBefore(one.place, place(last[1])) then
    one.take(0)
  elseif isBefore(one.place, place(first[1])) then
    one.take(length)
  else
    if counted <= mostCounted then
      local more = redis.call('XRANGE', stream, '(' .. one.id, upTo, 'COUNT', mostCounted + 1 - counted)
      counted, upTo = counted + #more, one.id
    end
    one.take(counted <= mostCounted and counted)
  end
end

return {
  head.number and text(head.added) or false, head.first_number or false, head.epoch or false,
  head.epoch_reason or false, head.paused or '0',
  head.alive and tonumber(redis.call('TIME')[1]) - tonumber(head.alive) or false, length,
  head.number and keepOf(head, retention.maxLength) or 0, first and first[1] or false, last and last[1] or false,
  type(bytes) == 'number' and bytes, not groups.err and groups, found, missed.err and {} or missed,
}
