-- Appends blocks on top of the expected head.
--
-- ARGV  filter, expected number, hash, part, digest, chain id, retention, final (0 or 1), blocks, the digest of the
--       part that is written then or '', a token in case an epoch begins, the logs of all blocks, the digest of the events
--       that they were decoded by or '', then for each block
--       number, hash, parent, timestamp, whole (0 or 1), traceparent or '', logs
--       Logs are packed: index, tx hash ('' if it is that of the log before), contract, topics, data, tx index of each, and
--       event and args (or '') if they were decoded. As separate arguments they would cost
--       a tenth more here, and three times as much in the client.
-- Returns pushed, id, identity and epoch of the last entry ('' without entries), id and identity of the entry before the
--         first appended one | duplicate | paused | conflict [number, hash, part, digest] | filter, its fingerprint
--         | newer, its version

local filter, number, hash, part, digest, chain = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local retention, final, blocks, nextDigest = ARGV[7], ARGV[8] == '1', tonumber(ARGV[9]), ARGV[10]

local packed, offset, abi = ARGV[12], 0, ARGV[13]
local txBefore = ''
local packedFields = abi == '' and 6 or 8

-- The position of the last block in ARGV, and the head after this push.
local firstAt = 14
local lastAt = firstAt + 7 * (blocks - 1)
local nextHead = { number = tonumber(ARGV[lastAt]), hash = ARGV[lastAt + 1], part = 0 }
if ARGV[lastAt + 4] == '0' then
  nextHead.part = tonumber(ARGV[lastAt + 6])
  if tonumber(part) > 0 and hash == nextHead.hash then nextHead.part = nextHead.part + tonumber(part) end
end

local head = readHead()
if not head.number and hash == '' and not newer(head) then
  local start = tonumber(number) + 1
  head = {
    number = start - 1, hash = '', part = 0, start_number = start, start_hash = '', filter = filter,
    filter_since = text(start), added = 0, digest = '', version = head.version, epoch = head.epoch,
    epoch_reason = head.epoch_reason,
  }
end
-- Checked before the head is compared: the pushes that follow in the pipeline must wait as well.
if head.number and head.paused == '1' and not newer(head) then return { 'paused' } end
local wrong = compare(head, filter, number, hash, part, digest)
if wrong then
  if wrong[1] == 'conflict' and head.number then
    -- Written before, by an earlier attempt or by another ingestor?
    local known = recordAt(nextHead.number)
    if known and known.hash == nextHead.hash then
      local whole = head.hash ~= nextHead.hash or head.part == 0
      local samePart = nextHead.part > 0 and head.part == nextHead.part and head.digest == nextDigest and nextDigest ~= ''
      if whole or samePart then return { 'duplicate' } end
    end
  end
  return wrong
end

mayWrite()

-- The record below: continued by the first block, or superseded.
local below = topRecord()
local unfinished = head.part > 0 and below or nil

if head.added == 0 then head.first_number = nil end
local addedBefore = head.added
local records = {}
local lastId, lastIdentity, previousId, previousIdentity = '', '', '', ''
if packed ~= '' then previousId, previousIdentity = lastEntry() end
for b = 1, blocks do
  local at = firstAt + 7 * (b - 1)
  local block = { number = tonumber(ARGV[at]), hash = ARGV[at + 1], parent = ARGV[at + 2] }
  local blockNumber, blockHash, timestamp, traceparent = ARGV[at], ARGV[at + 1], ARGV[at + 3], ARGV[at + 5]
  local logs = tonumber(ARGV[at + 6])
  local traced = traceparent == '' and {} or { 'traceparent', traceparent }
  local first, last = '-', '-'
  block.before = head.added
  for i = 1, logs do
    local index, tx, contract, topics, data, txIndex, event, args
    offset, index, tx, contract, topics, data, txIndex, event, args = cmsgpack.unpack_limit(packed, packedFields, offset)
    if tx == '' then tx = txBefore else txBefore = tx end
    local extra = traced
    if abi ~= '' then
      extra = { unpack(traced) }
      if event ~= '' then extra[#extra + 1], extra[#extra + 2] = 'event', event end
      if args ~= '' then extra[#extra + 1], extra[#extra + 2] = 'args', args end
    end
    last = redis.call('XADD', stream, '*', 'chain_id', chain, 'block_number', blockNumber, 'block_hash', blockHash,
      'tx_hash', tx, 'log_index', index, 'contract', contract, 'topics', topics, 'data', data,
      'timestamp', timestamp, 'tx_index', txIndex, 'removed', 'false', unpack(extra))
    if i == 1 then first = last end
    if i == logs then lastId, lastIdentity = last, blockHash .. ':' .. index .. ':false' end
  end
  head.added = head.added + logs
  block.count, block.first, block.last = logs, first, last
  if b == 1 and unfinished then
    block.count, block.first, block.before = unfinished.count + logs, unfinished.first, unfinished.before
    if logs == 0 then block.last = unfinished.last end
  end
  if block.number == head.start_number then head.start_hash = block.hash end
  if block.count > 0 or block.number == head.start_number or b == blocks then records[#records + 1] = block end
end

if below and (unfinished or (below.count == 0 and below.number ~= head.start_number)) then forget(below) end
for _, block in ipairs(records) do record(block) end
if final and nextHead.part == 0 then
  redis.call('ZREMRANGEBYSCORE', windowKey, '-inf', text(nextHead.number))
  head.final_number, head.final_hash = text(nextHead.number), nextHead.hash
end
-- Housekeeping trims once a second (trim.lua), which is not enough during a backfill.
local trimEvery = math.max(math.min(math.floor(retentionOf(retention).maxLength / 10), 50000), 1)
if math.floor(addedBefore / trimEvery) ~= math.floor(head.added / trimEvery) then trim(head, retention) end

local fields = {
  'number', text(nextHead.number), 'hash', nextHead.hash, 'part', text(nextHead.part),
  'start_number', text(head.start_number), 'start_hash', head.start_hash,
  'filter', head.filter, 'filter_since', head.filter_since, 'added', text(head.added),
  'part_digest', partDigest(nextHead.hash, nextHead.part, head.added, nextDigest),
  'paused', head.paused or '0',
}
if head.final_number then
  for _, value in ipairs({ 'final_number', head.final_number, 'final_hash', head.final_hash }) do
    fields[#fields + 1] = value
  end
end
for _, value in ipairs(facts(head, ARGV[11])) do fields[#fields + 1] = value end
if abi ~= (head.abi or '') then
  fields[#fields + 1] = 'abi'
  fields[#fields + 1] = abi
end
redis.call('HSET', headKey, unpack(fields))
return { 'pushed', lastId, lastIdentity, head.epoch, previousId, previousIdentity }
