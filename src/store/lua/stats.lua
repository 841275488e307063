-- How a stream stands at one moment, for people. What this server or user may not ask is left out.
--
-- ARGV  retention
-- Returns added, first number, epoch, its reason, paused (0 or 1), how many seconds ago an ingestor was alive, entries, how
--         many of them stay whoever has read what, first id, last id, bytes, groups (false: may not be asked for; of each
--         that is not said to be at its lag, how many entries were counted), readers, what both missed

local retention = retentionOf(ARGV[1])
local head = readHead()
local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
local length = redis.call('XLEN', stream)
local bytes = redis.pcall('MEMORY', 'USAGE', stream)
local groups = redis.pcall('XINFO', 'GROUPS', stream)
local readers = redis.pcall('HGETALL', readersKey)
local missed = redis.pcall('HGETALL', missedKey)

-- How many entries come after an id are counted up to here, and up to ten times as many for all that are asked about.
local mostCounted = 1000
local left = 10 * mostCounted

-- How many entries come after an id; false where they are too many to be counted.
local function after(id)
  if not last or not isBefore(place(id), place(last[1])) then return 0 end
  if isBefore(place(id), place(first[1])) then return length end
  if left <= 0 then return false end
  local found = #redis.call('XRANGE', stream, '(' .. id, '+', 'COUNT', mostCounted + 1)
  left = left - found
  return found <= mostCounted and found
end

-- Redis 6 tells no lag, and others none after entries were deleted or it was set back. Where the next entry of a group was
-- trimmed, the lag of Redis has those in it that the group never gets.
for _, group in ipairs(groups.err and {} or groups) do
  local at, id = #group + 2, nil
  for i = 1, #group, 2 do
    if group[i] == 'lag' then at = i + 1 end
    if group[i] == 'last-delivered-id' then id = group[i + 1] end
  end
  if not group[at] or (first and isBefore(place(id), place(first[1]))) then group[at - 1], group[at] = 'lag', after(id) end
end

local found = {}
for i = 1, readers.err and 0 or #readers, 2 do
  local id = string.match(readers[i + 1], '"id"%s*:%s*"(%d+%-%d+)"')
  if id then found[#found + 1] = { readers[i], readers[i + 1], id, after(id) } end
end

return {
  head.number and text(head.added) or false, head.first_number or false, head.epoch or false,
  head.epoch_reason or false, head.paused or '0',
  head.alive and tonumber(redis.call('TIME')[1]) - tonumber(head.alive) or false, length,
  head.number and keepOf(head, retention.maxLength) or 0, first and first[1] or false, last and last[1] or false,
  type(bytes) == 'number' and bytes, not groups.err and groups, found, missed.err and {} or missed,
}
