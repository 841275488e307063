-- Checks whether the stream still has the last entry that an ingestor knows. If the store has lost it (an older copy of the
-- data was restored), a new epoch begins: exactly one, also when several ingestors detect the loss.
--
-- An entry older than the first one was trimmed. An entry deleted by hand is covered by the stream's max-deleted-entry-id.
--
-- ARGV  id and identity of that entry ('' if none is known), the epoch in which it was acknowledged, a token for a new
--       epoch, then the known epochs before that one
-- Returns kept | lost (a new epoch begins here) | new epoch (another ingestor has begun one) | emptied; then the epoch,
--         those before it separated by spaces, id and identity of the last entry | newer, its version

local id, identity, epoch, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local head = readHead()
if newer(head) then return newer(head) end

local function isGone()
  if id == '' then return false end
  local found = redis.call('XRANGE', stream, id, id)[1]
  if found then return identityOf(found) ~= identity end
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if first and isBefore(place(id), place(first[1])) then return false end
  local last, deleted = streamIds()
  if deleted and not isBefore(place(deleted), place(id)) then return false end
  if first then return true end
  if last then return isBefore(place(last), place(id)) end
  return redis.call('EXISTS', stream) == 0
end

local before = redis.call('HGET', headKey, 'epoch_before') or ''
local outcome = 'kept'
-- An epoch that came before the known one: an older copy of the data, even if the entry is in it by now.
local isOlder = false
for i = 5, #ARGV do isOlder = isOlder or (epoch ~= '' and head.epoch ~= epoch and head.epoch == ARGV[i]) end
if not head.epoch and not head.number then
  outcome = id == '' and 'kept' or 'emptied'
elseif isOlder or isGone() then
  if isOlder or epoch == '' or head.epoch == epoch then
    mayWrite()
    local kept = {}
    for one in string.gmatch(before .. ' ' .. (head.epoch or ''), '%S+') do kept[#kept + 1] = one end
    before = table.concat(kept, ' ', math.max(#kept - 19, 1))
    head.epoch = token
    redis.call('HSET', headKey, 'epoch', token, 'epoch_reason', 'lost', 'epoch_before', before)
    outcome = 'lost'
  else
    outcome = 'new epoch'
  end
elseif id ~= '' and epoch ~= '' and head.epoch ~= epoch then
  outcome = 'new epoch'
end
return { outcome, head.epoch or '', before, lastEntry() }
