-- Retracts the top block, or as many of its last logs as fit into one call.
--
-- ARGV  filter, expected number, hash, part, digest, the maximum of logs per call
-- Returns popped, removed, missing, id, identity and epoch of the last entry ('' without entries), id and identity of the
--         entry before the first appended one | conflict [number, hash, part, digest] | filter, its fingerprint
--         | newer, its version

local most = tonumber(ARGV[6])
local head = readHead()
local wrong = compare(head, ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5])
if wrong then return wrong end
local top = topRecord()
if not top then return conflict(head) end

mayWrite()
most = math.min(top.count, most)
local left = top.count - most
local entries = {}
-- Reads one entry more than it retracts: that entry is the last of the rest.
if most > 0 then entries = redis.call('XREVRANGE', stream, top.last, top.first, 'COUNT', most + 1) end
local removed = math.min(#entries, most)
local lastId, lastIdentity, previousId, previousIdentity = '', '', '', ''
if removed > 0 then previousId, previousIdentity = lastEntry() end
for i = 1, removed do
  local fields, index = entries[i][2], ''
  for f = 1, #fields, 2 do
    if fields[f] == 'removed' then fields[f + 1] = 'true' end
    if fields[f] == 'log_index' then index = fields[f + 1] end
  end
  lastId = redis.call('XADD', stream, '*', unpack(fields))
  lastIdentity = top.hash .. ':' .. index .. ':true'
end
head.added = head.added + removed

forget(top)
local position
if left > 0 then
  top.count = left
  -- If another program deleted the rest, the range is empty.
  if entries[most + 1] then top.last = entries[most + 1][1] else top.first, top.last = '0-1', '0-1' end
  record(top)
  position = { number = top.number, hash = top.hash, part = -left }
else
  if top.number == head.start_number then head.start_hash = '' end
  local below = topRecord()
  if below then
    position = { number = below.number, hash = below.hash, part = 0 }
  elseif head.final_number then
    position = { number = tonumber(head.final_number), hash = head.final_hash, part = 0 }
  else
    position = { number = head.start_number - 1, hash = '', part = 0 }
  end
end
redis.call('HSET', headKey, 'number', text(position.number), 'hash', position.hash, 'part', text(position.part),
  'start_hash', head.start_hash, 'added', text(head.added), 'part_digest', '')
return { 'popped', removed, most - removed, lastId, lastIdentity, head.epoch or '', previousId, previousIdentity }
