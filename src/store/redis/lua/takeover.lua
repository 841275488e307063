-- Continues the journal with another filter, unless that is older than the journal's. A block that is partially written under the old
-- filter will be retracted. The replaced filter is kept among the last 20: an ingestor that still has it is out of date.
--
-- ARGV  filter, its description or '', CONFIG_VERSION or ''
-- Returns taken over | outdated | nothing | newer, its version

local head = readHead()
if newer(head) then return newer(head) end
if not head.number then return { 'nothing' } end
mayWrite()
local ours, stored = tonumber(ARGV[3]), tonumber(head.config_version)
if head.filter ~= ARGV[1] then
  local wasReplaced = redis.call('LREM', filtersKey, 0, ARGV[1]) > 0
  local isOutdated = wasReplaced
  if ours and ours ~= stored then isOutdated = stored ~= nil and ours < stored end
  if isOutdated then
    if wasReplaced then redis.call('RPUSH', filtersKey, ARGV[1]) end
    return { 'outdated' }
  end
  redis.call('LREM', filtersKey, 0, head.filter)
  redis.call('RPUSH', filtersKey, head.filter)
  redis.call('LTRIM', filtersKey, -20, -1)
end
local part, since = head.part, head.number + 1
if part ~= 0 then since = head.number end
if part > 0 then part = -part end
redis.call('HSET', headKey, 'filter', ARGV[1], 'filter_since', text(since), 'part', text(part), 'part_digest', '',
  'filter_content', ARGV[2], 'config_version', ours and text(ours) or head.config_version or '')
return { 'taken over' }
