-- How a stream stands at one moment, for people. What this server or user may not ask is left out.
--
-- ARGV  retention
-- Returns added, first number, epoch, its reason, paused (0 or 1), how many seconds ago an ingestor was alive, entries, how
--         many of them stay whoever has read what, first id, last id, bytes, groups (false: may not be asked for; of each
--         that is not said to be at its lag, how many entries were counted; of each with entries pending, `idle`), readers,
--         what both missed

local retention = retentionOf(ARGV[1])
local head = readHead()
local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
local length = redis.call('XLEN', stream)
local bytes = redis.pcall('MEMORY', 'USAGE', stream)
local groups = redis.pcall('XINFO', 'GROUPS', stream)
local readers = redis.pcall('HGETALL', readersKey)
local missed = redis.pcall('HGETALL', missedKey)

-- Whoever wants to know how many entries come after an id, with what to do with the answer.
local asked = {}
local function ask(id, take)
  asked[#asked + 1] = { id = id, place = place(id), take = take }
end

-- How long ago (milliseconds) the consumer that was active last asked for entries.
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

-- Redis 6 tells no lag, and others none after entries were deleted or it was set back. Where the next entry of a group was
-- trimmed, the lag of Redis has those in it that the group never gets.
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

-- The nearest to the end comes first, and each goes on where the one before it stood: a thousand entries are counted, however
-- many ask. Of whoever is further away it is not known.
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
